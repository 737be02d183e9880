"""Points at which the identity is held: draws from the source's prior, at its scales and others.

A kept scale that a sampler may visit can be many orders of magnitude from its prior's; there digits
are lost first. So the oracle also takes prior draws with each kept scale, and with all of them,
multiplied by powers of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import init_to_uniform

from autmarg.analysis.sites import normalise
from autmarg.backend.recovery import Recovery
from autmarg.ir.nodes import Sample
from autmarg.ir.program import Program
from autmarg.ir.staged import known
from autmarg.ir.tape import Tape

FAR = 30.0  # conditional standard deviations by which the far points are away
MAGNITUDES = (-6, -3, 3, 6)  # powers of ten by which scales are multiplied
_INSIDE = 0.999  # of a scale's upper bound, up to which it is moved


@dataclass(frozen=True)
class Points:
    """What makes each point.

    Attributes:
        keys: [P] random keys.
        stretch: [P] how many conditional standard deviations away the integrated sites are drawn.
        exponents: [P, S] powers of ten by which the S kept scales are multiplied.
    """

    keys: Any
    stretch: np.ndarray
    exponents: np.ndarray

    @property
    def arrays(self) -> tuple[Any, Any, Any]:
        return self.keys, jnp.asarray(self.stretch, float), jnp.asarray(self.exponents, float)


def points_of(seed: int, count: int, scales: int) -> Points:
    """``count`` prior draws, near and far, and the grid over the magnitudes of the scales."""
    moves = [np.ones(scales), *np.eye(scales)][: scales + 1 if scales > 1 else scales]
    grid = np.array([k * move for move in moves for k in MAGNITUDES])
    grid = grid.reshape(len(moves) * len(MAGNITUDES), scales)
    keys = jax.random.split(quick_key(seed), count + len(grid))
    near = np.zeros((count, scales))
    return Points(
        jnp.concatenate([keys[:count], keys]),
        np.repeat([1.0, FAR, 1.0], [count, count, len(grid)]),
        np.concatenate([near, near, grid]),
    )


def quick_key(seed: int) -> Any:
    """A key that is quick to compile; the points are any, so its quality is of no matter."""
    return jax.random.key(seed, impl="unsafe_rbg")


@dataclass(frozen=True)
class Scale:
    """A kept latent that is a scale, or with ``logarithm`` the logarithm of one.

    ``upper`` bounds its values.
    """

    name: str
    logarithm: bool = False
    upper: float = np.inf

    def moved(self, x: Any, exponent: Any) -> Any:
        """The latent's value where the scale is multiplied by a power of ten."""
        power = jnp.asarray(exponent, x.dtype)
        if self.logarithm:
            return x + power * jnp.asarray(np.log(10), x.dtype)
        moved = x * jnp.asarray(10, x.dtype) ** power
        return jnp.minimum(moved, _INSIDE * self.upper) if np.isfinite(self.upper) else moved


def scales_of(program: Program, kept: tuple[str, ...]) -> tuple[Scale, ...]:
    """Kept latents above zero, and real ones that the scale of a Gaussian site reads."""
    normalised = normalise(program)
    tape = normalised.program.tape
    parts = [s for g in normalised.gaussian.values() for s in (g.scale, g.scale_tril)]
    read = tape.dependencies([number for number in parts if number is not None])
    found = []
    for node in normalised.program.latents:
        if node.name not in kept or not node.size or not np.issubdtype(node.dtype, np.floating):
            continue
        support = _support(node, tape)
        if support is constraints.real and node.name in read:
            found.append(Scale(node.name, logarithm=True))
        elif _known(getattr(support, "lower_bound", None)) == 0:
            upper = _known(getattr(support, "upper_bound", np.inf))
            found += [] if upper is None else [Scale(node.name, upper=upper)]
    return tuple(found)


def _support(node: Sample, tape: Tape) -> Any:
    """The support of a latent's elements; its bounds are tracers where they are not known."""

    def read(*unknown: Any) -> Any:
        rest = iter(unknown)
        leaves = [tape.constants[v] if v in tape.constants else next(rest) for v in numbers]
        support = node.distribution.unflatten(leaves).support
        while hasattr(support, "base_constraint"):  # of independent elements
            support = support.base_constraint
        return support

    numbers = node.distribution.values
    return known(read, *(tape.avals[v] for v in numbers if v not in tape.constants))


def _known(bound: Any) -> float | None:
    """The least of a bound's values; None where there is none, or it is not known."""
    if bound is None or isinstance(bound, Tracer):
        return None
    return float(np.min(bound))


def prior_draw(
    source: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], key: Any
) -> dict[str, Any]:
    """Values of all latent and param sites, drawn as the source draws them.

    A prior from which one cannot draw (an improper one, or one whose draws need a package that is
    not installed) gives uniform numbers on (-2, 2) in unconstrained space.
    """
    model = handlers.substitute(handlers.seed(source, key), substitute_fn=_drawn)
    with handlers.block():
        sites = handlers.trace(model).get_trace(*args, **kwargs)
    latents = {n: s for n, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
    params = {n: s["value"] for n, s in sites.items() if s["type"] == "param"}  # may be pytrees
    return params | {name: jnp.asarray(site["value"]) for name, site in latents.items()}


def _drawn(site: dict[str, Any]) -> Any:
    if site["type"] != "sample" or site["is_observed"] or site["value"] is not None:
        return None
    options = site["kwargs"]
    try:
        return site["fn"](rng_key=options["rng_key"], sample_shape=options["sample_shape"])
    except (NotImplementedError, ImportError):
        return init_to_uniform(site)


def kept_at(
    recovery: Recovery,
    kept: Sequence[str],
    scales: Sequence[Scale],
    drawn: Mapping[str, Any],
    traced: Mapping[str, Any],
    key: Any,
    exponents: Any,
    stretch: Any,
) -> dict[str, Any]:
    """Kept sites, params and standard noise at a prior draw, the scales moved by powers of ten.

    Noise that makes whole sites is ``stretch`` times as large.
    """
    tape = recovery.program.tape
    values = {n: jnp.asarray(drawn[n]) for n in (*kept, *(p.name for p in recovery.inputs))}
    for k, scale in enumerate(scales):
        values[scale.name] = scale.moved(values[scale.name], exponents[k])
    for k, node in enumerate(recovery.noncentred):
        fn = node.base.distribution.build(tape, {**traced, **values})
        z = fn.sample(jax.random.fold_in(key, k), node.base.sample_shape)
        values[node.base.name] = z
        (values[node.name],) = tape.evaluate([node.value], {**traced, **values})
    for k, (name, size) in enumerate(recovery.noise.items()):
        own = jax.random.fold_in(key, len(recovery.noncentred) + k)
        values[name] = stretch * jax.random.normal(own, (size,), dtype=float)
    return values
