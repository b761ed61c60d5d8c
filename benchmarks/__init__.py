"""Measured comparisons with what a user would run instead: `python -m benchmarks`.

They are no tests: a clock decides nothing there.
"""
