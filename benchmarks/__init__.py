"""Measured comparisons with what a user would run instead: `python -m benchmarks`. No tests: a clock decides nothing there."""
