"""Sphinx's settings: MyST Markdown, the theme Furo, and every warning an error (`make docs`)."""

from importlib.metadata import version as _installed

project = "promptsearch"
author = "The promptsearch authors"
copyright = "2026, the promptsearch authors"  # noqa: A001 - Sphinx's name
release = version = _installed("promptsearch-kit")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "promptsearch"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
copybutton_prompt_text = "$ "
