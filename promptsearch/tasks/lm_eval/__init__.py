"""Tasks of lm-evaluation-harness, read as its YAML files describe them.

What a model reads of a document is what the harness gives it, with the prompt in front. The harness
itself is not imported, and neither is anything that its files name: a task that needs Python code
is refused.
"""
