"""Readers of what people and machines wrote, within stated limits: text, JSON, YAML, TOML.

Change this folder to read another notation, or to change a limit.
"""
