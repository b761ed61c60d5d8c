"""PEFT's own folders, written and read.

Touch it when PEFT learns or changes a format.
"""
