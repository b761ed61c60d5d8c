"""Built-in tasks: one YAML file each, with small factual data beside it.

A file has the keys of `task` in a study file, and a `description` of one line. NOTICE names the
origin of the data.
"""
