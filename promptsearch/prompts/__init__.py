"""What is searched over: one file a kind of prompts, their registry, and the space of hard ones.

Touch it to add a kind: a file of its own, and its line in `kinds.py`. Where the kind meets the
model in a way that no other does, `promptsearch.scoring.kinds` gets a row.
"""
