"""Sphinx settings: the pages are Markdown files beside this one."""

project = "autmarg"
author = "the autmarg developers"
extensions = ["myst_parser"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
