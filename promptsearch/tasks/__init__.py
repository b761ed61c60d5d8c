"""Tasks: template, examples, splits, readers of data and metrics; `builtin` has ready-made tasks.

Touch it to read other data or to measure answers in another way.
"""
