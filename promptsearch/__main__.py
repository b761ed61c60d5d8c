"""`python -m promptsearch` is the command `promptsearch`."""

import os
import sys

if sys.path and sys.path[0] == os.getcwd():  # `-m` looks for modules in the current folder first, which may hold anything
    del sys.path[0]

from promptsearch.cli import main

main()
