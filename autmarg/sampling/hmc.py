"""NUTS where it stays the better method."""

from __future__ import annotations

from typing import Any

import jax
from numpyro.infer import MCMC

WARMUP = 500


def run_nuts(
    marg: Any,
    rng_key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    num_samples: int,
    num_chains: int,
    num_warmup: int | None,
    progress: bool,
) -> MCMC:
    """An ``MCMC`` that has run with the kernel of the plan."""
    together = "parallel" if jax.local_device_count() >= num_chains else "sequential"
    mcmc = MCMC(
        marg.nuts(),
        num_warmup=WARMUP if num_warmup is None else num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=together if jax.default_backend() == "cpu" else "vectorized",
        progress_bar=progress,
    )
    mcmc.run(rng_key, *args, extra_fields=("num_steps", "diverging"), **kwargs)
    return mcmc


__all__ = ["WARMUP", "run_nuts"]
