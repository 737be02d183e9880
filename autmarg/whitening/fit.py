"""Pseudo-data at the mode: where Gaussian stand-ins touch the likelihood.

Two steps in turn. Given θ, Newton's method finds the mode of u: the stand-in of a predictor s with
slope g and curvature h of the log-likelihood is w = |h|, ỹ = s + g/w, and the conditional mean of u
under it is the next s (Gay & Welsch 1988 call it iterated weighting). Given the pseudo-data, θ is
moved uphill on

    log p(θ) + log p̃(ỹ | θ) + Σ [ℓ(ŝ) - log N(ỹ; ŝ, 1/w)],     ŝ at the mean of u given θ,

Laplace's approximation if w is the curvature at ŝ, in unconstrained coordinates with their
Jacobians, where a scale has a maximum however little the data say of it. Nothing hangs on how far
this gets: any pseudo-data give the exact posterior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to

from autmarg.compat.xla import quick
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Factor, Node, Observe, Sample, StandIn
from autmarg.ir.program import Program
from autmarg.whitening.density import log_density
from autmarg.whitening.predictors import Likelihood, cut
from autmarg.whitening.surrogate import Pseudo, scale_of, value_of

Array = np.ndarray

_ROUNDS, _NEWTON, _UPHILL = 6, 12, 15  # turns; steps of each kind in a turn
_NEAR, _STILL = 0.05, 0.1  # change of predictors in 1/√w, and of θ, that is none
_FARTHEST = 1.5  # that θ moves in one turn
_FLOOR = 1e-3  # of the median weight
_ALIKE = 1e-6  # relative: how far curvatures along two directions may differ
_AXIS = 16  # longest last axis whose elements are probed one by one


@dataclass(frozen=True, eq=False)
class Fit:
    """A program with stand-ins whose pseudo-data are inputs.

    Attributes:
        program: it, scheduled.
        likelihoods: what is stood in for.
        gaussians: the marginals of the members, given pseudo-data.
        inside: names of sites whose densities these have, originals with them.
    """

    program: Program
    likelihoods: tuple[Likelihood, ...]
    gaussians: tuple[GaussianMarginal, ...]
    inside: frozenset[str]

    @cached_property
    def predictors(self) -> tuple[int, ...]:
        """Of all sites."""
        return tuple(dict.fromkeys(p for each in self.likelihoods for p in each.predictors))

    @cached_property
    def kept(self) -> tuple[Sample, ...]:
        """Latents that are sampled, and matter here."""
        members = {m.name for each in self.gaussians for m in each.schedule.form.members}
        return tuple(n for n in self.program.latents if n.name not in members)

    @cached_property
    def held(self) -> frozenset[str]:
        """Kept latents above other kept ones, whose joint mode is where their scale is zero."""
        return frozenset().union(*(n.parents for n in self.kept if n.size > 1))

    def run(self) -> dict[int, Pseudo] | None:
        """Pseudo-data by predictor; None where no finite place was found."""
        with jax.ensure_compile_time_eval():
            return self._run()

    def _run(self) -> dict[int, Pseudo] | None:
        from scipy.optimize import minimize  # slow to import

        theta, free = self._start
        pseudo = self._first(theta)
        if pseudo is None:
            return None
        for _ in range(_ROUNDS):
            pseudo = self._mode(theta, pseudo)
            if not free.any():
                break

            def energy(x: Array, pseudo: Mapping[int, Pseudo] = pseudo) -> tuple[float, Array]:
                value, slope = self._uphill(x, self._inputs(pseudo))
                if not np.isfinite(value):
                    return np.inf, np.zeros_like(x)
                return -float(value), -np.where(free, np.nan_to_num(np.asarray(slope, float)), 0.0)

            bounds = [(x - _FARTHEST, x + _FARTHEST) for x in theta]
            options = {"maxiter": _UPHILL}
            found = minimize(energy, theta, jac=True, method="L-BFGS-B", bounds=bounds,
                             options=options)  # fmt: skip
            moved = np.abs(found.x - theta).max(initial=0.0)
            theta = found.x if np.isfinite(found.fun) else theta
            if moved < _STILL:
                break
        return self._mode(theta, pseudo)

    @cached_property
    def _start(self) -> tuple[Array, Array]:
        """Unconstrained kept latents, all zero, and which of them are free."""
        flat, _ = ravel_pytree(self._zeros)
        free = [np.full(x.size, name not in self.held) for name, x in sorted(self._zeros.items())]
        return np.asarray(flat, float), np.concatenate([np.zeros(0, bool), *free])

    @cached_property
    def _zeros(self) -> dict[str, Array]:
        shapes = {n.name: n.unconstrained_shape(self.program.tape) for n in self.kept}
        return {name: np.zeros(shape) for name, shape in shapes.items() if shape is not None}

    def _first(self, theta: Array) -> dict[int, Pseudo] | None:
        """At members of zero: the first pseudo-data."""
        members = {
            m.name: jnp.zeros(self._shape(m.name))
            for each in self.gaussians for m in each.schedule.form.members
            if m.name in self.program
        }  # fmt: skip
        found = jax.jit(self._curvatures, compiler_options=quick())(theta, members)
        return self._pseudo(found)

    def _mode(self, theta: Array, pseudo: dict[int, Pseudo]) -> dict[int, Pseudo]:
        """Pseudo-data at the mode of the members given θ."""
        joint, found = self._newton(theta, self._inputs(pseudo))
        step = 1.0
        for _ in range(_NEWTON):
            new = self._pseudo(found)
            if new is None:
                break
            while True:
                tried = _between(pseudo, new, step)
                after, there = self._newton(theta, self._inputs(tried))
                if after > joint - 1e-9 * abs(joint) or step < 1e-2:
                    break
                step *= 0.5
            if not after > -np.inf:
                break
            moved = max(
                float(np.abs((there[p][0] - found[p][0]) * np.sqrt(tried[p].weight)).max(initial=0))
                for p in self.predictors
            )
            pseudo, joint, found, step = tried, after, there, min(1.0, 2 * step)
            if moved < _NEAR:
                break
        return self._pseudo(found) or pseudo

    def _shape(self, name: str) -> tuple[int, ...]:
        node = self.program[name]
        assert isinstance(node, Sample)
        return node.shape

    def _inputs(self, pseudo: Mapping[int, Pseudo]) -> dict[str, Array]:
        scales = {scale_of(p): own.weight**-0.5 for p, own in pseudo.items()}
        return scales | {value_of(p): own.value for p, own in pseudo.items()}

    def _pseudo(self, found: Mapping[int, Any]) -> dict[int, Pseudo] | None:
        """Stand-ins that touch the likelihood where its slopes and curvatures were taken."""
        out = {}
        for predictor, triple in found.items():
            s, slope, curve = (np.asarray(x, np.float64) for x in triple)
            if not np.isfinite([s, slope, curve]).all():
                return None
            weight = np.abs(curve)
            positive = weight[weight > 0]
            least = _FLOOR * np.median(positive) if len(positive) else 1.0
            weight = np.maximum(weight, least)
            out[predictor] = Pseudo(weight, s + slope / weight)
        return out

    # What is compiled.

    @cached_property
    def _uphill(self) -> Any:
        return jax.jit(jax.value_and_grad(self._objective), compiler_options=quick())

    @cached_property
    def _newton(self) -> Any:
        """(θ, pseudo-data) → log p(u, y | θ), and predictors with slopes, at the mean of u."""

        def run(theta: Any, inputs: Any) -> tuple[Any, Any]:
            values, _ = self._values(theta)
            members, total = self._means({**values, **inputs})
            found = self._curvatures(theta, members)
            scores = self._scores({**values, **inputs}, found)
            return total + scores, found

        compiled = jax.jit(run, compiler_options=quick())

        def at(theta: Array, inputs: Any) -> tuple[float, Any]:
            joint, found = compiled(theta, inputs)
            joint = float(joint)
            return (joint if np.isfinite(joint) else -np.inf), found

        return at

    def _objective(self, theta: Any, inputs: Mapping[str, Any]) -> Any:
        values, total = self._values(theta)
        values |= inputs
        for each in self.gaussians:
            total = total + each.log_density(values)
        members, _ = self._means(values)
        tape = self.program.tape
        found = {p: tape.evaluate([p], {**values, **members}) for p in self.predictors}
        return total + self._scores(values, found)

    def _values(self, theta: Any) -> tuple[dict[str, Any], Any]:
        """Kept latents, and the log-density of all that reads no member, with the Jacobian."""
        _, unravel = ravel_pytree(self._zeros)
        z, values, total = unravel(theta), {}, jnp.zeros(())
        tape = self.program.tape
        for latent in self.kept:
            if latent.name not in z:
                continue
            fn = latent.distribution.build(tape, _or_zeros(self.program, latent, values))
            to_support = biject_to(fn.support)
            values[latent.name] = to_support(z[latent.name])
            slope = to_support.log_abs_det_jacobian(z[latent.name], values[latent.name])
            total = total + jnp.sum(slope)
        for node in self.program.nodes:
            if node.name not in self.inside and node.parents <= set(values):
                total = total + self._plain(node, values)
        return values, total

    def _plain(self, node: Node, values: Mapping[str, Any]) -> Any:
        """The log-density of a node that reads no member."""
        tape = self.program.tape
        if isinstance(node, StandIn):  # that of its site is counted once
            node = node.original
            if node.name in self.inside:
                return 0.0
        if isinstance(node, Factor):
            return jnp.sum(tape.evaluate([node.value], values)[0])
        if isinstance(node, Observe) or (isinstance(node, Sample) and node.name in values):
            return log_density(tape, node, values)
        return 0.0

    def _means(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Conditional means of the members, and log p̃(u, ỹ | θ) there."""
        members, total = {}, jnp.zeros(())
        for each in self.gaussians:
            drawn, log_q = each.drawn(values, jnp.zeros(each.columns))
            total = total + log_q + each.log_density(values)
            members |= {n: x.reshape(self._shape(n)) for n, x in drawn.items() if n in self.program}
        return members, total

    def _scores(self, values: Mapping[str, Any], found: Mapping[int, Any]) -> Any:
        """Σ [ℓ(s) - log N(ỹ; s, 1/w)]."""
        total = self._likelihood({p: triple[0] for p, triple in found.items()}, values)
        for p in self.predictors:
            scale = values[scale_of(p)]
            z = (values[value_of(p)] - found[p][0]) / scale
            total = total + jnp.sum(0.5 * z * z + jnp.log(scale) + 0.5 * np.log(2 * np.pi))
        return total

    def _likelihood(self, predictors: Mapping[int, Any], values: Mapping[str, Any]) -> Any:
        """Σ ℓ, a scalar."""
        tape = cut(self.program.tape, predictors.keys(), predictors.values())
        sites = [each.site for each in self.likelihoods]
        return sum((log_density(tape, site, values) for site in sites), jnp.zeros(()))

    def _curvatures(self, theta: Any, members: Mapping[str, Any]) -> dict[int, tuple[Any, Any, Any]]:
        """Each predictor with slope and second derivative of Σ ℓ in its elements."""
        values, _ = self._values(theta)
        tape = self.program.tape
        at = {p: tape.evaluate([p], {**values, **members})[0] for p in self.predictors}
        slopes = jax.grad(lambda s: self._likelihood(s, values))

        def along(p: int, direction: Any) -> Any:
            zeros = {q: jnp.zeros_like(x) for q, x in at.items()}
            _, change = jax.jvp(slopes, (at,), ({**zeros, p: direction},))
            return change[p]

        slope = slopes(at)
        return {p: (x, slope[p], _diagonal(lambda d, p=p: along(p, d), x)) for p, x in at.items()}


def _diagonal(along: Any, like: Any) -> Any:
    """The diagonal of a Hessian whose products with directions are known.

    Elements that do not share a row have one direction. Whether a row has several elements shows in
    two directions of different signs; then those along the last axis are taken one by one.
    """
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], like.shape), like.dtype)
    plain, mixed = along(jnp.ones_like(like)), signs * along(signs)
    if not like.ndim or like.shape[-1] > _AXIS:
        return 0.5 * (plain + mixed)
    unit = [jnp.zeros_like(like).at[..., k].set(1.0) for k in range(like.shape[-1])]
    each = jnp.stack([along(e)[..., k] for k, e in enumerate(unit)], -1)
    apart = jnp.abs(plain - mixed).max() <= _ALIKE * jnp.abs(plain).max()
    return jnp.where(apart, plain, each)


def _between(old: Mapping[int, Pseudo], new: Mapping[int, Pseudo], step: float) -> dict[int, Pseudo]:
    """Part of the way from some pseudo-data to others, in their natural parameters."""
    out = {}
    for p, own in new.items():
        weight = (1 - step) * old[p].weight + step * own.weight
        product = (1 - step) * old[p].weight * old[p].value + step * own.weight * own.value
        out[p] = Pseudo(weight, product / weight)
    return out


def _or_zeros(program: Program, latent: Sample, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values, zero for what a prior reads that is not among them."""
    shapes = {n.name: n.shape for n in program.latents}
    missing = {n: jnp.zeros(shapes[n]) for n in latent.parents if n not in values and n in shapes}
    return {**missing, **values}
