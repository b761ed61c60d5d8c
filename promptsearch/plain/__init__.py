"""Reading what people and machines wrote, within stated limits: text, JSON, YAML, TOML.

Touch it to read another notation, or to change a limit.
"""
