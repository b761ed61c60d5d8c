"""One comparison: settings -> cells -> runs in a folder, and its bill beforehand.

Touch it to change what a study file may say, or how its runs are laid out, resumed and told.
"""
