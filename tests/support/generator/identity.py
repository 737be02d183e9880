"""The exactness identity at two points of a small program, in one compiled call.

``autmarg.verify`` draws its own points and compiles several times as much; here the values are
made by NumPy, since log p(θ, u, y) = log p_marg(θ, y) + log p_recover(u | θ, y) at any values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import log_density

import autmarg


def values_of(latents: Any, seed: int) -> dict[str, Any]:
    """A value for each latent: "s…" are positive, "L…" correlation factors, "c…" sum to zero."""
    rng = np.random.default_rng(seed)
    out = {}
    for node in latents:
        if node.name.startswith("s"):
            value = rng.uniform(0.4, 1.6, node.shape)
        elif node.name.startswith("L"):
            value = np.tril(rng.uniform(-0.5, 0.5, node.shape), -1) + np.eye(node.shape[-1])
            value = value / np.linalg.norm(value, axis=-1, keepdims=True)
        else:
            value = rng.normal(size=node.shape)
        if node.name.startswith("c"):
            for axis in range(-len(node.distribution.event_shape), 0):
                value = value - value.mean(axis, keepdims=True)
        out[node.name] = jnp.asarray(value, float)
    return out


@dataclass(frozen=True)
class Found:
    """Errors of the identity in nats at two points, and the density that they hold for.

    The points are a recovery draw, with the log-density that the sampler returns from its noise,
    and arbitrary values, with that of the formula.
    """

    errors: np.ndarray
    tolerance: float
    kept: dict[str, Any]
    density: float


def identity(
    marg: autmarg.MarginalizedModel, seed: int = 0, values: dict[str, Any] | None = None
) -> Found:
    """Both points in one compiled call, at ``values`` of all latents (:func:`values_of`)."""
    compiled, traced = marg.compiled()
    program = compiled.plan.program
    values = values or values_of(program.latents, seed)
    members = {name: values[name] for name in compiled.plan.integrated}
    kept = {name: values[name] for name in compiled.plan.kept}

    @jax.jit
    def both(key: Any, kept: dict[str, Any], members: dict[str, Any]) -> Any:
        drawn, density = compiled.recovery.draw_with_density(key, kept, traced)
        formula = compiled.recovery.log_conditional({**traced, **kept}, members)
        points = jax.tree.map(lambda *pair: jnp.stack(pair), drawn, members)

        def source(members: dict[str, Any]) -> Any:
            return log_density(marg.source, (), {}, {**kept, **members})[0]

        left = jax.vmap(source)(points) if points else source({})
        marginal = log_density(marg, (), {}, kept)[0]
        return left - marginal - jnp.stack([density, formula]), marginal

    # A key that is cheap to compile; the points are any, so its quality is of no matter.
    errors, density = both(jax.random.key(seed, impl="unsafe_rbg"), kept, members)
    size = sum(n.size for n in program.latents) + sum(n.size for n in program.observed)
    rate = 1e-9 if jax.config.values["jax_enable_x64"] else 1e-4
    return Found(np.asarray(errors), rate * size, kept, float(density))


def check_exact(model: Callable[..., Any], integrated: str) -> None:
    """Assert which sites go when everything may, in a string of names, and that it is exact."""
    marg = autmarg.transform(model, marginalize="all")
    found = identity(marg)
    assert marg.plan().integrated == tuple(integrated.split())
    assert np.abs(found.errors).max() <= found.tolerance
