"""Pseudo-data at the mode: where Gaussian stand-ins touch the likelihood.

Two steps in turn. Given θ, Newton's method finds the mode of u: the stand-in of a predictor s with
slope g and curvature h of the log-likelihood is w = |h|, ỹ = s + g/w, and the conditional mean of u
given that is the next u. Given the pseudo-data, θ is moved uphill on the density in (θ, z) at
z = 0, which is Laplace's approximation of log p(θ, y) where w is the curvature at the mean of u.
That is in unconstrained coordinates with their Jacobians, where a scale has a maximum however
little the data say of it. Nothing hangs on how far this gets: any pseudo-data give the exact
posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to

from autmarg.compat.programs import compiled
from autmarg.ir.nodes import Factor, Node, Observe, Sample, StandIn
from autmarg.ir.program import Program
from autmarg.whitening.density import WhitenedMarginal, log_density
from autmarg.whitening.predictors import Key, Likelihood, cut
from autmarg.whitening.surrogate import Pseudo, scale_of, value_of

Array = np.ndarray

_ROUNDS, _NEWTON, _UPHILL = 6, 30, 15  # turns; steps of each kind in a turn
_NEAR, _STILL = 1e-4, 0.1  # change of predictors, in 1/√w, and of θ, that is none
_FARTHEST = 1.5  # that θ moves in one turn
_FAINT = 1e-6  # weight of pseudo-data that say nothing
_LEAST = 1e-3  # weight, of the median one
_SHORTEST, _LONGER = 1e-12, 8.0  # part of a Newton step; how many times as long the next may be
_BESIDE, _OFF_ZERO = 8.0, 1e-6  # roundings of a predictor; of θ to start with
_ALIKE = 1e-6  # relative: how far curvatures in two directions may differ
_AXIS = 16  # longest last axis whose elements are taken one by one


class Mode(NamedTuple):
    """θ, unconstrained and flat, and pseudo-data by predictor."""

    theta: Array
    pseudo: dict[Key, Pseudo]


@dataclass(frozen=True, eq=False)
class Fit:
    """A program with stand-ins whose pseudo-data are inputs.

    Attributes:
        program: it, scheduled.
        likelihoods: what is stood in for.
        densities: of what is integrated out given pseudo-data, connected sets apart.
    """

    program: Program
    likelihoods: tuple[Likelihood, ...]
    densities: tuple[WhitenedMarginal, ...]

    @cached_property
    def predictors(self) -> tuple[int, ...]:
        """Of all sites."""
        return tuple(dict.fromkeys(p for each in self.likelihoods for p in each.predictors))

    @cached_property
    def kept(self) -> tuple[Sample, ...]:
        """Latents that are sampled, and that the densities, or priors of these, read."""
        names = frozenset().union(*(read_by(self.program, each) for each in self.densities))
        return tuple(n for n in self.program.latents if n.name in names)

    @cached_property
    def held(self) -> frozenset[str]:
        """Kept latents above other kept ones, whose joint mode is where their scale is zero."""
        return frozenset().union(*(n.parents for n in self.kept if n.size > 1))

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the latents that are functions of noise."""
        return tuple(m.name for each in self.densities for m in each.members)

    @cached_property
    def inside(self) -> frozenset[str]:
        """Names of sites whose densities are in ``densities``."""
        return frozenset(n.name for each in self.densities for n in each.others)

    def run(self) -> Mode | None:
        """θ and pseudo-data at the mode; None where no finite place was found."""
        # (predictors of what is not stood in for are beside zero, too: see _tangent)
        theta = np.full(sum(x.size for x in self._zeros.values()), _OFF_ZERO)
        pseudo = faint(self.program, self.likelihoods)
        for _ in range(_ROUNDS):
            mode = self.touching(theta, pseudo)
            if mode is None:
                return None
            pseudo, before = mode, theta
            theta = self._uphill(theta, pseudo)
            if np.abs(theta - before).max(initial=0.0) < _STILL:
                break
        last = self.touching(theta, pseudo)
        if last is None or not np.isfinite(self.at(theta, last).value):
            return None
        return Mode(theta, last)

    def _uphill(self, theta: Array, pseudo: Mapping[Key, Pseudo]) -> Array:
        """θ uphill, as far as the pseudo-data are good for."""

        def density(x: Array) -> tuple[float, Array]:
            found = self.at(x, pseudo)
            return found.value, found.slope

        return uphill(density, theta, self.free)

    def touching(self, theta: Array, pseudo: dict[Key, Pseudo]) -> dict[Key, Pseudo] | None:
        """Pseudo-data at the mode of the members given θ, found from others; None without one."""
        here, step = self.at(theta, pseudo), 1.0
        for _ in range(_NEWTON):
            new = self._tangent(theta, here.predictors)
            if new is None:
                return None
            tried = _between(pseudo, new, step)
            there = self.at(theta, tried)
            while not there.joint >= here.joint - _ALIKE and step > _SHORTEST:
                step *= 0.5
                tried = _between(pseudo, new, step)
                there = self.at(theta, tried)
            moved = max(
                (np.abs(there.predictors[p] - here.predictors[p]) * np.sqrt(own.weight)).max()
                for (_, p), own in tried.items()
            )
            pseudo, here, step = tried, there, min(1.0, _LONGER * step)
            if moved < _NEAR:
                break
        return self._tangent(theta, here.predictors)

    def _tangent(self, theta: Array, at: Mapping[int, Array]) -> dict[Key, Pseudo] | None:
        """Pseudo-data that touch the likelihood where the predictors are.

        Or a few roundings beside: where a likelihood is written with |s| and max(s, 0), as that of
        logits is, JAX's derivatives at s = 0, where searches would start, are those of neither
        side, and may be zero far from a mode.
        """
        at = {p: s + _BESIDE * np.finfo(s.dtype).eps * (1 + np.abs(s)) for p, s in at.items()}
        out = {}
        for key, (slope, curve) in self._derivatives(theta, at).items():
            s, g, h = (np.asarray(x, np.float64) for x in (at[key[1]], slope, curve))
            if not all(np.isfinite(x).all() for x in (s, g, h)):
                return None
            out[key] = tangent(s, g, h)
        return out

    def at(self, theta: Array, pseudo: Mapping[Key, Pseudo]) -> Found:
        """The density, its slope and the predictors at θ and z = 0."""
        inputs = inputs_of(pseudo)
        (value, (joint, *known)), slope = self._density(theta, inputs)
        value, joint = (float(x) if np.isfinite(x) else -np.inf for x in (value, joint))
        return Found(value, joint, np.asarray(slope, float), *jax.tree.map(np.asarray, known))

    @cached_property
    def _zeros(self) -> dict[str, Array]:
        """Unconstrained kept latents, all zero."""
        shapes = {n.name: n.unconstrained_shape(self.program.tape) for n in self.kept}
        return {name: np.zeros(shape) for name, shape in shapes.items() if shape is not None}

    @cached_property
    def free(self) -> Array:
        """Which of them are moved, in the order of their names, as they are flattened."""
        free = [np.full(x.size, name not in self.held) for name, x in sorted(self._zeros.items())]
        return np.concatenate([np.zeros(0, bool), *free])

    @cached_property
    def _density(self) -> Callable[..., Any]:
        return compiled(jax.value_and_grad(self._log_density, has_aux=True))

    def _log_density(
        self, theta: Any, inputs: Mapping[str, Any]
    ) -> tuple[Any, tuple[Any, Any, Any]]:
        """log p(θ, z, y) at z = 0, and there log p(u, y | θ), the predictors and u."""
        values, total = self.values(theta)
        values, joint = {**values, **inputs}, jnp.zeros(())
        found: dict[str, Any] = {}
        for each in self.densities:
            values[each.noise] = jnp.zeros(each.columns)
            members, log_q = each.image(values)
            values |= members
            found |= members
            own = each.joint(values)
            joint, total = joint + own, total + own - log_q
        tape = self.program.tape
        predictors = {p: tape.evaluate([p], values)[0] for p in self.predictors}
        return total, (joint, predictors, found)

    def values(self, theta: Any) -> tuple[dict[str, Any], Any]:
        """Kept latents, and the log-density of all that reads no member, with the Jacobian."""
        _, unravel = ravel_pytree(self._zeros)
        z, values, total = unravel(theta), {}, jnp.zeros(())
        for latent in self.kept:
            if latent.name not in z:
                continue
            fn = latent.distribution.build(self.program.tape, self._reads(latent, values))
            to_support = biject_to(fn.support)
            x = to_support(z[latent.name])
            total = total + jnp.sum(to_support.log_abs_det_jacobian(z[latent.name], x))
            values[latent.name] = x
        for node in self.program.nodes:
            if node.name not in self.inside and node.parents <= set(values):
                total = total + self._plain(node, values)
        return values, total

    def theta(self, values: Mapping[str, Any]) -> Any:
        """θ, unconstrained and flat, of values of the kept latents."""
        z = {}
        for latent in (n for n in self.kept if n.name in self._zeros):
            fn = latent.distribution.build(self.program.tape, self._reads(latent, values))
            z[latent.name] = biject_to(fn.support).inv(values[latent.name])
        return ravel_pytree(z)[0]

    def _reads(self, latent: Sample, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values, zero for what a prior reads that is not among them."""
        shapes = {n.name: n.shape for n in self.program.latents}
        return {**{n: jnp.zeros(shapes[n]) for n in latent.parents if n in shapes}, **values}

    def _plain(self, node: Node, values: Mapping[str, Any]) -> Any:
        """The log-density of a node that reads no member."""
        tape = self.program.tape
        if isinstance(node, StandIn):
            return 0.0 if node.name != node.original.name else self._plain(node.original, values)
        if isinstance(node, Factor):
            return jnp.sum(tape.evaluate([node.value], values)[0])
        if isinstance(node, Observe) or (isinstance(node, Sample) and node.name in values):
            return log_density(tape, node, values)
        return 0.0

    @cached_property
    def _derivatives(self) -> Callable[..., Any]:
        """(θ, predictors) → slopes of each site's log-density in each, and second derivatives."""

        def derivatives(theta: Any, at: dict[int, Any]) -> dict[Key, tuple[Any, Any]]:
            return self.derivatives(self.values(theta)[0], at)

        return compiled(derivatives, briefly=True)

    def derivatives(
        self, values: Mapping[str, Any], at: Mapping[int, Any]
    ) -> dict[Key, tuple[Any, Any]]:
        """Slopes of each site's log-density in each predictor, and second derivatives.

        Args:
            values: of all else that the sites read.
            at: the predictors.
        """
        found: dict[Key, tuple[Any, Any]] = {}
        for each in self.likelihoods:
            found |= self._of_site(each, {p: at[p] for p in each.predictors}, values)
        return found

    def _of_site(
        self, each: Likelihood, at: dict[int, Any], values: Mapping[str, Any]
    ) -> dict[Key, tuple[Any, Any]]:
        def log_p(predictors: dict[int, Any]) -> Any:
            tape = cut(self.program.tape, predictors.keys(), predictors.values())
            return log_density(tape, each.site, values)

        def along(p: int, direction: Any) -> Any:
            zeros = {q: jnp.zeros_like(x) for q, x in at.items()}
            return jax.jvp(slopes, (at,), ({**zeros, p: direction},))[1][p]

        slopes = jax.grad(log_p)
        first = slopes(at)
        return {(name, p): (first[p], _diagonal(partial(along, p), at[p])) for name, p in each.keys}


def tangent(s: Array, slope: Array, curve: Array) -> Pseudo:
    """Pseudo-data of the slope and curvature of a log-likelihood at s, no weight near zero."""
    weight = np.abs(curve)
    positive = weight[weight > 0]
    least = _LEAST * np.median(positive) if len(positive) else 1.0
    weight = np.maximum(weight, least)
    return Pseudo(weight, s + slope / weight)


def uphill(density: Callable[[Array], tuple[float, Array]], theta: Array, free: Array) -> Array:
    """θ uphill on a density with its slope, no coordinate far, and those that are free only."""
    from scipy.optimize import minimize  # slow to import

    if not free.any():
        return theta

    def energy(x: Array) -> tuple[float, Array]:
        value, slope = density(x)
        return -value, -np.where(free, np.nan_to_num(slope), 0.0)

    bounds = [(x - _FARTHEST, x + _FARTHEST) for x in theta]
    options = {"maxiter": _UPHILL}
    best = minimize(energy, theta, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return best.x if np.isfinite(best.fun) else theta


def inputs_of(pseudo: Mapping[Key, Pseudo]) -> dict[str, Array]:
    """Pseudo-data by the names of the inputs that they are."""
    inputs = {scale_of(key): own.weight**-0.5 for key, own in pseudo.items()}
    return inputs | {value_of(key): own.value for key, own in pseudo.items()}


def faint(program: Program, sites: Iterable[Likelihood]) -> dict[Key, Pseudo]:
    """Pseudo-data that leave members at their prior's mean."""
    shapes = {key: program.tape.avals[key[1]].shape for each in sites for key in each.keys}
    return {key: Pseudo(np.full(n, _FAINT), np.zeros(n)) for key, n in shapes.items()}


class Found(NamedTuple):
    """At a θ and the mean of u there: the density at z = 0, log p(u, y | θ), the slope in θ, u."""

    value: float
    joint: float
    slope: Array
    predictors: dict[int, Array]
    members: dict[str, Array]


def read_by(program: Program, density: WhitenedMarginal) -> frozenset[str]:
    """Names of all that a density is a function of, but for noise, pseudo-data and members."""
    members = {m.name for m in density.members}
    own = {make(key) for key in density.keys for make in (scale_of, value_of)}
    found, waiting = set[str](), density.inputs - own - {density.noise}
    while waiting:
        found |= waiting
        nodes = [program[name] for name in waiting if name in program]
        waiting = frozenset().union(*(n.parents for n in nodes)) - found - members
    return frozenset(found)


def is_known(program: Program, density: WhitenedMarginal) -> bool:
    """Whether that are latents with an unconstrained value, and nothing else."""
    latents = {n.name: n for n in program.latents}
    return all(
        name in latents and latents[name].unconstrained_shape(program.tape) is not None
        for name in read_by(program, density)
    )


def _diagonal(along: Callable[[Any], Any], like: Any) -> Any:
    """The diagonal of a Hessian whose products with directions are known.

    Where no row has two elements, one direction tells. Whether one has shows in two directions of
    different signs; then elements along the last axis are taken one by one.
    """
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], like.shape), like.dtype)
    directions = [jnp.ones_like(like), signs]
    short = bool(like.ndim) and like.shape[-1] <= _AXIS
    if short:
        unit = range(like.shape[-1])
        directions += [jnp.zeros_like(like).at[..., k].set(1.0) for k in unit]
    # (side by side: a program for each would take as many times as long to compile)
    plain, mixed, *one = jax.vmap(along)(jnp.stack(directions))
    mixed = signs * mixed
    if not short:
        return 0.5 * (plain + mixed)
    each = jnp.stack([own[..., k] for k, own in enumerate(one)], -1)
    apart = jnp.abs(plain - mixed).max() <= _ALIKE * jnp.abs(plain).max()
    return jnp.where(apart, plain, each)


def _between(
    old: Mapping[Key, Pseudo], new: Mapping[Key, Pseudo], step: float
) -> dict[Key, Pseudo]:
    """Part of the way from some pseudo-data to others, in their natural parameters."""
    out = {}
    for p, own in new.items():
        weight = (1 - step) * old[p].weight + step * own.weight
        product = (1 - step) * old[p].weight * old[p].value + step * own.weight * own.value
        out[p] = Pseudo(weight, product / weight)
    return out
