"""The versions that a canary names when it fails."""

from __future__ import annotations

import jax
import numpyro

VERSIONS = f"in jax {jax.__version__}, numpyro {numpyro.__version__}"
