"""Sphinx settings. The pages are Markdown; those with code cells are run when the site is built."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.insert(0, str(HERE.parent))

project = "autmarg"
author = "the autmarg developers"
copyright = "the autmarg developers, Apache-2.0"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "docstrings",
    "drawn",
    "mathml",
]
html_theme = "furo"
html_title = "autmarg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["_build", "README.md"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]

# The programs of tutorials run in a process for each page; an error fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
suppress_warnings = ["myst-nb.lexer"]  # of pages that are not run: -D nb_execution_mode=off

# What those processes see. Nearly all of a page's time is compilation, so XLA optimises little;
# plans are made for the reference machine; figures can be read on a light and on a dark page.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE / "_build" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["AUTMARG_MACHINE"] = ""
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of tqdm
os.environ["MATPLOTLIBRC"] = str(HERE / "figures" / "matplotlibrc")
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")])
)

# The reference: docstrings are in Google's style; signatures carry the types.
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
