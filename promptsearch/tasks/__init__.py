"""What is to be solved: template, examples, splits, readers of data, metrics; `builtin` has ready ones.

Touch it to read other data or to measure answers in another way.
"""
