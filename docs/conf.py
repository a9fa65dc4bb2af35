"""Sphinx configuration of the manual."""

from __future__ import annotations

import matcompute

project = "matcompute"
author = "matcompute developers"
release = version = matcompute.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"matcompute {release}"
exclude_patterns = ["_build"]
# Links to files of the repository (benchmarks, YAML) are not pages of the manual.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
