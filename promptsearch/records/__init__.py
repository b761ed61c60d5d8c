"""Files that a run leaves, one schema for writer and reader: log, ledger, cache, results.

Touch it to change what is kept of a run; every change of content is a new version.
"""
