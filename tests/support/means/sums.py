"""Sums, averages, cumulative sums, differences and contrasts of latents."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.support.means.data import G5, TIMES, Mean, X

MEANS: dict[str, Mean] = dict(
    sum_last=lambda v: v.w.sum(-1),
    sum_keepdims=lambda v: v.w - v.w.sum(0, keepdims=True),
    mean_all=lambda v: v.u.mean() * X,
    mean_axis=lambda v: jnp.mean(v.w, axis=0),
    mean_where=lambda v: jnp.mean(v.w, axis=0, where=(np.arange(12) % 5 > 0).reshape(4, 3)),
    average=lambda v: jnp.average(v.w, axis=0, weights=np.arange(1.0, 5.0)),
    centred=lambda v: (v.u - v.u.mean())[G5],
    sum_to_zero=lambda v: jnp.append(v.u, -v.u.sum()),
    sum_to_zero_concatenate=lambda v: jnp.concatenate([v.u, -v.u.sum(keepdims=True)]),
    reference_level=lambda v: jnp.concatenate([jnp.zeros(1), v.u])[G5],
    reference_level_pad=lambda v: jnp.pad(v.u, (1, 0))[G5],
    cumsum=lambda v: jnp.cumsum(v.z),
    cumsum_axis=lambda v: jnp.cumsum(v.w, axis=1),
    cumsum_reverse=lambda v: lax.cumsum(v.z, reverse=True),
    cumsum_flipped=lambda v: jnp.cumsum(v.z[::-1])[::-1],
    cumsum_scaled=lambda v: v.c + jnp.cumsum(v.ell * v.z),
    cumsum_twice=lambda v: jnp.cumsum(jnp.cumsum(v.z)),
    associative_scan=lambda v: lax.associative_scan(jnp.add, v.z),
    cumsum_by_triangle=lambda v: jnp.tril(np.ones((12, 12))) @ v.z,
    diff=lambda v: jnp.diff(v.z),
    diff_second=lambda v: jnp.diff(v.z, n=2),
    ediff1d=lambda v: jnp.ediff1d(v.z),
    trapezoid=lambda v: jnp.trapezoid(v.z, TIMES) * X,
    nansum=lambda v: jnp.sum(jnp.stack([v.u, 2 * v.u]), axis=0),
    trace=lambda v: jnp.trace(v.w[:3]) * X,
    negative=lambda v: -v.u + (+v.u) / 3 - (-v.c),
    ptp_free=lambda v: jnp.subtract(v.u, v.c) + jnp.add(v.u, 1),
)
