"""Sphinx's settings: ``sphinx-build docs docs/_build``. The pages read as well without it."""

project = "vsae"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "furo"
suppress_warnings = ["myst.xref_missing", "toc.not_included"]  # links to files outside docs/
