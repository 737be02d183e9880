"""Ways in which people write an affine mean: tables of functions of the same few latents.

``v.u`` [5], ``v.w`` [4, 3], ``v.z`` [12] and ``v.c`` [] are Gaussian and must all be integrated
out; ``v.tau`` [3] > 0, ``v.ell`` > 0 and ``v.p`` are kept, and may enter the coefficients.
"""

from __future__ import annotations

from tests.support.means import (
    control_flow,
    linear_maps,
    lookups,
    moves,
    products,
    sums,
    well_known,
)
from tests.support.means.data import Mean

KINDS = (lookups, products, sums, moves, control_flow, linear_maps, well_known)
MEANS: dict[str, Mean] = {name: mean for kind in KINDS for name, mean in kind.MEANS.items()}
assert len(MEANS) == sum(len(kind.MEANS) for kind in KINDS), "two means of one name"
