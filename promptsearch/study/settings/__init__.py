"""The keys of a study file, as types.

What each key wants stands in its description, which messages and the JSON Schema show. Nothing here
needs torch, so that the command line starts fast. Touch it to change what a study file may say.
"""
