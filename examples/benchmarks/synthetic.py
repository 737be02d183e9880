"""Synthetic sets by description: ``crossed:levels=1000x50,rows=1e5,slopes=1`` and the like.

* ``crossed``: grouping factors with so many ``levels`` each, met at random by ``rows`` rows.
* ``nested``: the same, but each level of a factor lies in one of the factor after it.
* ``chain``: a local level observed with noise, ``steps`` steps.

``slopes`` is the number of covariates whose effects vary by level of the first factor; ``seed``
is that of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

from examples.benchmarks.opponents import Factor
from examples.benchmarks.sets import Draws, Set


@dataclass(frozen=True)
class Description:
    """What ``kind:key=value,…`` says."""

    kind: str
    levels: tuple[int, ...] = (100,)
    rows: int = 10_000
    slopes: int = 0
    steps: int = 1000
    seed: int = 0

    @classmethod
    def of(cls, text: str) -> Description:
        """Read a description.

        Raises:
            KeyError: an unknown kind or key.
        """
        kind, _, rest = text.partition(":")
        if kind not in ("crossed", "nested", "chain"):
            raise KeyError(f"no synthetic set {kind!r}; expected crossed, nested or chain")
        given: dict[str, Any] = {}
        for key, _, value in (part.partition("=") for part in rest.split(",") if part):
            if key not in cls.__dataclass_fields__:
                raise KeyError(f"no key {key!r} of a synthetic set; expected levels, rows, …")
            sizes = tuple(int(float(size)) for size in value.split("x"))
            given[key] = sizes if key == "levels" else sizes[0]
        return cls(kind, **given)


def grouped(*args: Any, slopes: int, centred: bool = True) -> None:
    """y ~ X beta + Σ_k effects of level codes_k; the first factor's effects vary with all of X.

    ``args`` are the codes of each factor, the columns X [N, 1 + slopes], and y.
    """
    *codes, X, y = args
    beta = numpyro.sample("beta", dist.Normal(0, 5).expand([X.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    mean = X @ beta
    for k, level in enumerate(codes):
        levels, d = int(level.max()) + 1, slopes + 1 if k == 0 else 1
        own = dist.Normal(0, 1) if d == 1 else dist.Normal(0, 1).expand([d]).to_event(1)
        if d == 1:
            tau = factor = numpyro.sample(f"tau_u{k}", dist.HalfNormal(2))
        else:
            tau = numpyro.sample(f"tau_u{k}", dist.HalfNormal(2).expand([d]).to_event(1))
            factor = tau[:, None] * numpyro.sample(f"L_u{k}", dist.LKJCholesky(d))
        with numpyro.plate(f"levels{k}", levels):
            if centred and d == 1:
                u = numpyro.sample(f"u{k}", dist.Normal(0, tau))
            elif centred:
                u = numpyro.sample(f"u{k}", dist.MultivariateNormal(scale_tril=factor))
            else:
                z = numpyro.sample(f"z_u{k}", own)
                u = factor * z if d == 1 else z @ factor.T
        mean = mean + (u[level] if d == 1 else (X * u[level]).sum(-1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def noncentred_walk(y: Any) -> None:
    """A random walk observed with noise, as the sum of its scaled steps."""
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    z = numpyro.sample("z_x", dist.Normal(0, 1).expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(tau * jnp.cumsum(z), sigma), obs=y)


def walk(y: Any) -> None:
    """A random walk observed with noise, step by step."""
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))

    def step(state: Any, observed: Any) -> tuple[Any, None]:
        x = numpyro.sample("x", dist.Normal(state, tau))
        numpyro.sample("y", dist.Normal(x, sigma), obs=observed)
        return x, None

    scan(step, jnp.zeros(()), y)


def _effects(draws: Draws) -> Draws:
    """u = z (diag(tau) L)ᵀ for every factor, in place of z."""
    out = {name: np.asarray(value) for name, value in draws.items()}
    for name in [n[2:] for n in draws if n.startswith("z_u")]:
        z, tau = out.pop(f"z_{name}"), out[f"tau_{name}"]
        factor = tau[..., None] * out[f"L_{name}"] if f"L_{name}" in out else None
        out[name] = tau[..., None] * z if factor is None else z @ np.swapaxes(factor, -1, -2)
    return out


def _summed(draws: Draws) -> Draws:
    out = dict(draws)
    out["x"] = np.asarray(out["tau"])[..., None] * np.cumsum(np.asarray(out.pop("z_x")), -1)
    return out


def synthetic_set(text: str) -> Set:
    """The set of a description, its data drawn from the model at scales of one half and one."""
    about = Description.of(text)
    rng = np.random.default_rng(about.seed)
    if about.kind == "chain":
        y = np.cumsum(0.5 * rng.normal(size=about.steps)) + rng.normal(size=about.steps)
        return Set(text, (y,), walk, noncentred_walk, _summed, "y", (), ())
    codes = _codes(about, rng)
    X = np.column_stack([np.ones(about.rows), rng.normal(size=(about.rows, about.slopes))])
    y = X.sum(1) + rng.normal(size=about.rows)
    factors = []
    for k, level in enumerate(codes):
        columns = X if k == 0 else X[:, :1]
        u = 0.5 * rng.normal(size=(about.levels[k], columns.shape[1]))
        y += (columns * u[level]).sum(1)
        factors.append(Factor((f"u{k}",), level, columns))
    source = partial(grouped, slopes=about.slopes)
    return Set(
        text,
        (*codes, X, y),
        source,
        partial(source, centred=False),
        _effects,
        "y",
        tuple(sorted(factors, key=lambda f: -f.size)),
        ("beta",),
    )


def _codes(about: Description, rng: np.random.Generator) -> list[np.ndarray]:
    """Levels of each row, every level at least once."""

    def spread(levels: int, size: int) -> np.ndarray:
        drawn = rng.integers(levels, size=size)
        drawn[rng.permutation(size)[:levels]] = np.arange(levels)
        return drawn

    if about.kind == "crossed":
        return [spread(levels, about.rows) for levels in about.levels]
    codes = [spread(about.levels[0], about.rows)]
    for inner, outer in pairwise(about.levels):
        codes.append(spread(outer, inner)[codes[-1]])
    return codes
