"""Attacks on promptsearch: hostile files, folders, servers, plug-ins and kills, with fixed seeds; run `python -m attack`."""
