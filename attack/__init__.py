"""Attacks on promptsearch: hostile files, folders, servers, plug-ins and kills.

The seeds are fixed; run `python -m attack`.
"""
