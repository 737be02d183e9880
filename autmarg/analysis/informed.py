"""How much the data say about the elements of a kept latent: a score test on the known data.

The model without differences between the elements is fitted to the data, x = f(loc + e) with e = 0
and everything else free. With S_j = ∂ log p(y | e) / ∂e_j and I_j = -∂² log p(y | e) / ∂e_j² there,

    F = mean_j S_j² / I_j,        E[F] ≈ 1 + τ² mean_j I_j,

τ being the scale of the elements (Lin 1997, Biometrika 84(2)). τ² I is the number that decides
between the two forms: where the data say more about an element than its prior does, the form as
written has the better posterior, where they say less, the non-centred one (Papaspiliopoulos,
Roberts & Sköld 2007).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to

from autmarg.analysis.families.location_scale import as_location_scale
from autmarg.ir.nodes import Deterministic, Observe, Sample
from autmarg.ir.program import Program

_ROWS = 100_000  # elements of the data up to which the test is made
_FREE = 64  # elements up to which another latent is fitted; larger ones stay where they start
_ITERATIONS = 40
_RIDGE = 1e-3  # of what is fitted, in unconstrained space
_ALIKE = 1e-6  # relative: how far a Hessian may be from diagonal
_ERRORS = 4.0  # standard errors above one from which differences are beyond doubt
# The F from which the form as written is better. At τ² I = 1 they are equally good if τ is known;
# but it is sampled, down to where the funnel is. (Smallest bulk ESS a second of the form as written
# beside the other, 2,500 draws: 0.9 at F = 2.6, 0.5 at 3.0, 1.1 at 4.0, 2.3 at 4.6, 12 at 577;
# poisson_groups, rat_tumours, overdispersed_counts, item_response and admissions.)
_BETTER = 3.25


@dataclass(frozen=True)
class Information:
    """The F of a latent with so many elements."""

    ratio: float
    elements: int

    @property
    def plain(self) -> bool:
        """Whether the data show that the elements differ, and by enough: F is a mean of squares of
        normals, with variance 2 / elements, if they do not."""
        return self.ratio > max(1 + _ERRORS * math.sqrt(2 / self.elements), _BETTER)


def information(program: Program, node: Sample) -> Information | None:
    """The F of a location-scale latent, None where it cannot be had from known data.

    All that reads it must be observed, with known values, and each row read one element.
    """
    children = [c for c in program.children(node.name) if not isinstance(c, Deterministic)]
    observed = [c for c in children if isinstance(c, Observe)]
    if len(observed) < len(children) or not 0 < sum(c.size for c in observed) <= _ROWS:
        return None
    fit = _Fit.of(program, node, observed)
    if fit is None:
        return None
    with jax.ensure_compile_time_eval():  # also where a transformation is at work outside
        return fit.information()


@dataclass(frozen=True, eq=False)
class _Fit:
    """log p(y | z, e) for unconstrained values z of all other latents that matter."""

    program: Program
    node: Sample
    observed: list[Observe]
    others: tuple[Sample, ...]  # by name, as they are flattened

    @classmethod
    def of(cls, program: Program, node: Sample, observed: list[Observe]) -> _Fit | None:
        """None where data or covariates are not known, or a latent that matters is discrete."""
        tape = program.tape
        below = {node.name, *(c.name for c in observed)}
        names = set.union(below, *(program.ancestors(n) for n in below))
        sites = {n.name: n for n in program.latents if n.name in names}
        numbers = [v for n in (*sites.values(), *observed) for v in n.numbers]
        known = all(n in sites for n in tape.dependencies(numbers))
        float_ = all(np.issubdtype(n.dtype, np.floating) for n in sites.values())
        if not (known and float_) or any(n.scanned for n in (*sites.values(), *observed)):
            return None
        if node.name in node.parents or any(n.scale is not None for n in observed):
            return None
        others = sorted((n for n in sites.values() if n is not node), key=lambda n: n.name)
        fit = cls(program, node, observed, tuple(others))
        mapped = all(latent.unconstrained_shape(tape) is not None for latent in others)
        return fit if mapped else None

    def _zeros(self) -> dict[str, np.ndarray]:
        """Unconstrained values of the other latents, all zero."""
        shapes = {n.name: n.unconstrained_shape(self.program.tape) for n in self.others}
        return {name: np.zeros(shape) for name, shape in shapes.items() if shape is not None}

    def information(self) -> Information | None:
        """F at the fit, None where the elements are not read apart or there is no fit."""
        from scipy.optimize import minimize  # slow to import

        start, unravel = ravel_pytree(self._zeros())
        free = np.concatenate([np.zeros(0, bool), *(self._is_free(n) for n in self.others)])
        signs = np.random.default_rng(0).choice([-1.0, 1.0], self.node.shape)

        def log_density(flat: Any, e: Any) -> Any:
            return self._log_likelihood(unravel(flat), e) - 0.5 * _RIDGE * jnp.vdot(flat, flat)

        @jax.jit
        def slopes(flat: Any) -> tuple[Any, ...]:
            zero = jnp.zeros(self.node.shape, start.dtype)
            value, downhill = jax.value_and_grad(log_density)(flat, zero)
            score, curve = jax.linearize(lambda e: jax.grad(log_density, 1)(flat, e), zero)
            return value, downhill, score, -curve(zero + 1), -signs * curve(zero + signs)

        def energy(flat: Any) -> tuple[float, Any]:
            value, downhill, *_ = slopes(flat)
            return -float(value), -np.where(free, downhill, 0.0)

        options = {"maxiter": _ITERATIONS}
        point = np.asarray(start, np.float64)
        if free.any():
            point = minimize(energy, point, jac=True, method="L-BFGS-B", options=options).x
        *_, score, curved, apart = (np.asarray(a, np.float64) for a in slopes(point))
        if not np.isfinite([score, curved, apart]).all():
            return None
        if np.abs(curved - apart).max() > _ALIKE * np.abs(curved).max():
            return None  # a row reads several elements
        read = curved > _ALIKE * curved.max()
        score, curved = score[read], curved[read]
        if not len(curved):
            return None
        # An observed information that is small by chance would make a large ratio.
        expected = np.maximum(curved, np.median(curved) / 2)
        return Information(float(np.mean(score**2 / expected)), len(curved))

    def _log_likelihood(self, z: Mapping[str, Any], e: Any) -> Any:
        """log p(y | z, e) of all that reads the latent."""
        tape, values = self.program.tape, {}
        for latent in self.program.latents:
            if latent is self.node:
                values[latent.name] = self._moved(latent.distribution.build(tape, values), e)
            elif latent.name in z:
                support = latent.distribution.build(tape, values).support
                values[latent.name] = biject_to(support)(z[latent.name])
        total = 0.0
        for site in self.observed:
            (value,) = tape.evaluate([site.value], values)
            total = total + jnp.sum(site.distribution.build(tape, values).log_prob(value))
        return total

    def _moved(self, prior: Any, e: Any) -> Any:
        """x = f(loc + e)."""
        family = as_location_scale(prior)
        x = jnp.broadcast_to(family.loc, self.node.shape) + e
        for transform in family.bijection:
            x = transform(x)
        return x

    def _is_free(self, latent: Sample) -> np.ndarray:
        size = latent.dimensions(self.program.tape)
        return np.full(size, size <= _FREE)
