"""A study file drafted from data: fields, kind of task, sizes, and the text with its comments.

Touch it where a draft takes a field, a metric, a size or a strategy that is not the sensible one.
"""
