"""Importing autmarg is quick: packages that are slow to import wait for what needs them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLOW = (
    "arviz", "lark", "matplotlib", "networkx", "pandas", "scipy.optimize", "scipy.stats", "sympy",
    "xarray",
)  # fmt: skip
# What JAX and NumPyro import for themselves is none of ours.
PROGRAM = f"""
import sys
import numpyro.infer
before = set(sys.modules)
import autmarg
print(*sorted({set(SLOW)} & (sys.modules.keys() - before)))
"""


def test_import_leaves_slow_packages_for_later():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
