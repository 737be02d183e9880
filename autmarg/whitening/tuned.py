"""Pseudo-data from draws of the posterior, kept for whatever data come next.

Over draws of a predictor s under a log-likelihood ℓ,

    w = |E ℓ″(s)|,  ỹ = E s + E ℓ′(s) / w,

which is where the Gaussian that is nearest to the posterior of u in Kullback-Leibler divergence has
its pseudo-data (Opper & Archambeau 2009, Neural Computation 21(3)), here with θ averaged over, too.
The mode of Laplace's approximation is far from there where few data inform each effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from autmarg.compat.programs import compiled
from autmarg.ir.program import Program
from autmarg.whitening.fit import Fit, Mode, tangent
from autmarg.whitening.predictors import Key, Likelihood
from autmarg.whitening.surrogate import Pieces, Pseudo, with_stand_ins

_DRAWS = 256  # that are averaged over


@dataclass(frozen=True, eq=False)
class Tuned:
    """Stand-ins by site.

    Attributes:
        pseudo: by the name of a site, for each of its predictors.
        pieces: of connected sets of latents that are taken apart.
    """

    pseudo: Mapping[str, tuple[Pseudo, ...]]
    pieces: tuple[Pieces, ...]

    @classmethod
    def of(cls, fit: Fit, mode: Mode, pieces: Sequence[Pieces]) -> Tuned:
        """Those of a fit."""
        own = {e.site.name: tuple(mode.pseudo[key] for key in e.keys) for e in fit.likelihoods}
        return cls(own, tuple(pieces))

    def written(self, program: Program, found: Sequence[Likelihood]) -> Program | None:
        """The program with these stand-ins; None where its sites or latents have other shapes."""
        sites = [each for each in found if each.site.name in self.pseudo]
        shapes = {n.name: n.shape for n in program.latents}
        centres = {n: x.shape for each in self.pieces for n, x in each.centre.items()}
        if len(sites) < len(self.pseudo) or not centres.items() <= shapes.items():
            return None
        pseudo: dict[Key, Pseudo] = {}
        for each in sites:
            own = self.pseudo[each.site.name]
            avals = [program.tape.avals[p].shape for p in each.predictors]
            if avals != [x.weight.shape for x in own]:
                return None
            pseudo |= zip(each.keys, own, strict=True)
        return with_stand_ins(program, sites, pseudo, pieces=self.pieces)


def averaged(fit: Fit, draws: Mapping[str, Any]) -> Mode | None:
    """The mean of θ, unconstrained, and pseudo-data over draws; None where none has finite slopes.

    Args:
        fit: the program with stand-ins.
        draws: arrays [*draws, *shape] of all latents, with any leading dimensions.
    """
    flat = {n.name: np.reshape(draws[n.name], (-1, *n.shape)) for n in fit.program.latents}
    total = min(len(x) for x in flat.values())
    chosen = np.linspace(0, total - 1, min(total, _DRAWS)).astype(int)
    some = {name: x[chosen] for name, x in flat.items()}
    count, sums = compiled(partial(_summed, fit), briefly=True)(some)
    if not count:
        return None
    theta, of_keys = jax.tree.map(lambda x: np.asarray(x, np.float64) / float(count), sums)
    return Mode(theta, {key: tangent(*own) for key, own in of_keys.items()})


def _summed(fit: Fit, draws: Mapping[str, Any]) -> tuple[Any, Any]:
    """How many draws have finite slopes; sums over these of θ, and of (s, ℓ′, ℓ″) by key."""

    def of_draw(values: Mapping[str, Any]) -> Any:
        found = fit.program.tape.evaluate(list(fit.predictors), values)
        at = dict(zip(fit.predictors, found, strict=True))
        both = fit.derivatives(values, at)
        return fit.theta(values), {key: (at[key[1]], *both[key]) for key in both}

    def add(carry: tuple[Any, Any], values: Mapping[str, Any]) -> tuple[tuple[Any, Any], None]:
        count, sums = carry
        new = of_draw(values)
        finite = jnp.isfinite(ravel_pytree(new)[0]).all()
        sums = jax.tree.map(lambda total, x: total + jnp.where(finite, x, 0), sums, new)
        return (count + finite, sums), None

    first = {name: x[0] for name, x in draws.items()}
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_draw, first))
    return jax.lax.scan(add, (jnp.zeros((), int), zeros), draws)[0]
