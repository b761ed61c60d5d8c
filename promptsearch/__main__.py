"""`python -m promptsearch` is the command `promptsearch`."""

from promptsearch.cli import main

main()
