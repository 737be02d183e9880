"""What latents in pieces have to do with one another, at the mode and away from it.

Stand-ins of pieces (:class:`autmarg.whitening.surrogate.Pieces`) leave it out. A matrix puts it
back at the mode (:mod:`autmarg.whitening.turn`). Away from it that is missing, and by how much is
measured before pieces are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.compat.programs import compiled
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Sample
from autmarg.whitening.density import log_density
from autmarg.whitening.fit import Fit, Mode, inputs_of
from autmarg.whitening.turn import Turn, turned

Array = np.ndarray

_STEP = 1e-3  # of θ, for its Hessian
_WIDEST = 1.0  # standard deviation of an unconstrained coordinate of θ that is looked at


@dataclass(frozen=True, eq=False)
class Joint:
    """The Gaussian model that whole stand-ins make of a connected set, in noise of its pieces.

    Attributes:
        fit: the program with stand-ins that read whole predictors, its pseudo-data inputs.
        mode: of it.
        sites: of this set: its latents and all that reads them, stand-ins included.
        by_pieces: the same latents with stand-ins of pieces, whose pseudo-data are known.
        second: which of its columns are of latents outside the largest piece.
    """

    fit: Fit
    mode: Mode
    sites: tuple[Sample, ...]
    by_pieces: GaussianMarginal
    second: Array

    def energy(self, values: Mapping[str, Any], x: Any) -> Any:
        """-log p̃(u, ỹ | θ) at u = T(θ, x)."""
        flat, _ = self.by_pieces.image(values, x)
        read = (site for site in self.sites if site.name in flat)
        members = {site.name: flat[site.name].reshape(site.shape) for site in read}
        known = {**values, **members, **inputs_of(self.mode.pseudo)}
        tape = self.fit.program.tape
        return -sum((log_density(tape, site, known) for site in self.sites), jnp.zeros(()))

    def turn(self) -> Turn:
        """What pieces have to do with one another at the mode."""
        return turned(partial(self._slope, self.mode.theta), self.second)

    def lag(self, turn: Turn) -> float:
        """How far the mean of z moves while θ does by its standard deviation.

        In standard deviations of z, the most over the principal directions of θ at the mode of
        Laplace's approximation. A map that knows the joint precision at every θ has none.
        """
        theta, centre = self.mode.theta, np.zeros(len(turn.second))
        ends = (theta + sign * each for each in self._deviations() for sign in (-1, 1))
        slopes = (turn.transposed(self._slope(end, centre)) for end in ends)
        return max((float(np.linalg.norm(each)) for each in slopes), default=0.0)

    def _slope(self, theta: Array, x: Array) -> Array:
        """The energy's derivative in x."""
        return np.asarray(self._energy_slope(theta, x), np.float64)

    @cached_property
    def _energy_slope(self) -> Callable[[Array, Array], Any]:
        def energy(theta: Any, x: Any) -> Any:
            return self.energy(self.fit.values(theta)[0], x)

        return compiled(jax.grad(energy, argnums=1), briefly=True)

    def _deviations(self) -> Array:
        """The principal directions of θ, a standard deviation long."""
        theta, free = self.mode.theta, np.flatnonzero(self.fit.free)
        steps = _STEP * np.eye(len(theta))[free]
        slopes = (self._laplace_slope(theta + s) - self._laplace_slope(theta - s) for s in steps)
        hessian = np.zeros((len(free), len(free)))
        for row, each in zip(hessian, slopes, strict=True):
            row[:] = -each[free] / (2 * _STEP)
        values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
        deviations = np.minimum(_WIDEST, np.maximum(values, _WIDEST**-2) ** -0.5)
        directions = np.zeros((len(free), len(theta)))
        directions[:, free] = (vectors * deviations).T
        return directions

    def _laplace_slope(self, theta: Array) -> Array:
        return np.nan_to_num(self.fit.at(theta, self.mode.pseudo).slope)
