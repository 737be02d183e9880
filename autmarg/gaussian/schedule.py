"""A schedule of stages: log-density, conditional means, exact draws and their density.

    log p(y | θ) = -½ [n log 2π - log|W| + log|G| + min_z (rᵀW r + zᵀz)],   r = A L z + c,

the minimum being where the conditional mean z* = G⁻¹h is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from autmarg.gaussian import small
from autmarg.gaussian.affine import AffineForm, Numbers, Point
from autmarg.gaussian.assembly import Assembly
from autmarg.gaussian.coordinates import Coordinates
from autmarg.gaussian.minimum import at_minimum
from autmarg.gaussian.quadratic import QuadraticForm, log_scale
from autmarg.gaussian.rowwise import Omega
from autmarg.gaussian.solver import Solver, factorise
from autmarg.gaussian.stages.base import AnyStage
from autmarg.gaussian.stages.chain import Chain, Errors
from autmarg.gaussian.stages.triangular import TriangularRoot
from autmarg.gaussian.terms import Walked
from autmarg.gaussian.triangle import TriangularAssembly
from autmarg.gaussian.where_needed import where_needed

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

# Nats a row and column by which the estimated rounding error of a log-density may be off, and its
# share of the sum of squares. Beyond, the density is NaN: never a plausible number.
_LOST, _RELATIVE = 1e-6, 1e-9
# That share where the digits are lost in adding up the squares themselves.
_OWN = 1e-12
# The relative error of pivots from which the estimate, which is of first order, says nothing: then
# neither do z* and a sum of squares there, whose share would allow any error.
_FIRST_ORDER = 0.1
# The same, of what a bound on the error may be for cross-products to be trusted unseen.
_PLAIN = 1e-8


@dataclass(frozen=True, eq=False)
class Schedule:
    """An assembled system with its elimination order.

    Rows enter through the terms of ``assembly``; chains filter those that are walked.
    ``exact`` is the same by rows, where that is worth it (:mod:`autmarg.gaussian.triangle`).
    """

    form: AffineForm
    assembly: Assembly | TriangularAssembly
    stages: tuple[AnyStage, ...]
    exact: Schedule | None = None

    @cached_property
    def coordinates(self) -> Coordinates:
        """What z means for members."""
        return Coordinates(self.form)

    @cached_property
    def _filters(self) -> dict[int, Chain]:
        """The chains that have their own rows, by their place among the stages."""
        chains = ((k, stage) for k, stage in enumerate(self.stages) if isinstance(stage, Chain))
        return {k: chain for k, chain in chains if chain.rows is not None}

    def _factorise(self, point: Point) -> tuple[Solver, Float[Array, ""]]:
        """The factors of G, and the log-normaliser of the rows."""
        with jax.named_scope("assemble"):  # names for profiles and HLO
            form, constant = self.assembly(point)
        return factorise(self.stages, form), constant + point.constant

    def log_density(self, point: Point) -> Float[Array, ""]:
        """log p(y | θ), a scalar."""

        def log_density(own: Schedule, point: Point) -> tuple[Array]:
            constant, squares = own._parts(point)
            return (constant - 0.5 * squares,)

        return self._where_needed(log_density, point)[0] + point.constant

    def parts(self, point: Point) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The log-normaliser K of log p(y | θ) = K - Q/2, and Q, the minimum's sum of squares.

        A schedule by rows is asked only where cross-products may lose digits.
        """
        constant, squares = self._where_needed(lambda own, point: own._parts(point), point)
        return constant + point.constant, squares

    def _where_needed(
        self, of: Callable[[Schedule, Point], tuple[Array, ...]], point: Point
    ) -> tuple[Array, ...]:
        """What a schedule makes of a point but for its constant: this one, or the one by rows."""

        def by(own: Schedule) -> Callable[[Numbers], tuple[Array, ...]]:
            return lambda numbers: of(own, replace(point, constant=0.0, **numbers))

        numbers: Numbers = {"omega": point.omega, "priors": point.priors}
        if self.exact is None:
            return by(self)(numbers)
        assert not point.factors, "rows of correlated noise are not kept as triangles"
        return where_needed(self._has_digits(point), by(self), by(self.exact), numbers)

    def _has_digits(self, point: Point) -> Bool[Array, ""]:
        """Whether cross-products have digits enough: no pivot is below one, and G_ii is bounded."""
        assert self.exact is not None and isinstance(self.exact.assembly, TriangularAssembly)
        size = jax.lax.stop_gradient(self.exact.assembly.triangles.rounding(point))
        allowed = _PLAIN * (self.assembly.n + self.form.columns)
        return jnp.finfo(size.dtype).eps * size <= allowed

    def _parts(self, point: Point) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """K and Q by this schedule, NaN where their digits are lost."""
        solver, constant = self._factorise(point)
        with jax.named_scope("conditional mean"):
            z = solver.mean()
        with jax.named_scope("sum of squares"):
            if self.triangular and self.stages:
                squares = self._least_squares(point, solver, z)
            else:
                errors = [
                    chain.errors(solver.factors[k], solver.own[k])
                    for k, chain in self._filters.items()
                ]
                squares = at_minimum(self._squares_over_filters, point, errors, z)
        sound = self._sound(point, solver.form, z, squares)
        constant = constant - 0.5 * solver.log_det
        # (a precision that underflows, say, has logarithm -inf)
        sound = jnp.where(self._overflown(point, constant), jnp.nan, sound)
        return sound * constant, sound * squares

    def lost(self, point: Point) -> Float[Array, ""]:
        """Nats by which the log-density may be off, as far as its factors can tell."""
        return self._where_needed(lambda own, point: (own._lost(point),), point)[0]

    def _lost(self, point: Point) -> Float[Array, ""]:
        solver, _ = self._factorise(point)
        z = solver.mean()
        squares = self._squares(point, z)
        return self._rounding(solver.form, z, squares) + self._cancelled(point, z)

    def _rounding(
        self, form: QuadraticForm, z: Float[Array, "columns"], squares: Float[Array, ""]
    ) -> Float[Array, ""]:
        """An estimate of the rounding error of log p(y | θ); ``squares`` are those at z.

        Let log|G| be off by ``form.error``. The sum of squares is then off by as much times the
        square of what the directions in question have in z, or times the length of all rows, and
        by the rounding of the known residuals. Of rows that are filtered one by one, S and what is
        weighed by 1/S are off by the same share, ``form.filtered`` at most.
        """
        eps = jnp.finfo(z.dtype).eps
        proper = jnp.asarray(~self.form.flat, z.dtype)
        largest = jnp.square(proper * z).max(initial=0.0)
        rounding = jnp.square(eps) * jnp.asarray(np.full(1, self.assembly.rounded))[0]
        length = jnp.sqrt(squares)
        estimate = form.error * (1.0 + largest + length) + form.filtered * (1.0 + squares)
        return estimate + length * jnp.sqrt(rounding) + rounding

    def _sound(
        self,
        point: Point,
        form: QuadraticForm,
        z: Float[Array, "columns"],
        squares: Float[Array, ""],
    ) -> Float[Array, ""]:
        """One, or NaN where the digits are lost; ``squares`` are those at z.

        Rows on several devices would have to be added up once more for their sum of squares; it
        is taken for what it is where the model fits.
        """
        z, squares = jax.lax.stop_gradient((z, squares))
        if self.form.layout is not None:
            squares = self.assembly.n + self._prior_squares(z)
        estimate = self._rounding(form, z, squares)
        least = _LOST * (self.assembly.n + self.form.columns)
        cancelled = self._cancelled(point, z)
        sound = (estimate <= least + _RELATIVE * squares) & (cancelled <= least + _OWN * squares)
        sound &= form.error <= _FIRST_ORDER
        sound &= jnp.logical_not(self._overflown(point, squares))
        return jnp.where(sound, 1.0, jnp.nan)

    def _overflown(self, point: Point, number: Float[Array, ""]) -> Bool[Array, ""] | bool:
        """Whether a number is not finite though all that the point gives is; not asked of Omega."""
        if self.form.layout is not None:
            return False
        assert not isinstance(point.omega, Omega)
        return ~jnp.isfinite(number) & jnp.isfinite(point.omega).all()

    def _cancelled(self, point: Point, z: Float[Array, "columns"]) -> Float[Array, ""] | float:
        """The rounding error of the terms' own sums of squares at z."""
        numbers = {chain.number for chain in self._filters.values()}
        v = self.coordinates.centred(point, z, numbers)
        return sum(term.lost(point, v) for term in self.assembly.terms)

    def draw(
        self, point: Point, noise: Float[Array, "columns"]
    ) -> tuple[dict[str, Float[Array, "elements"]], Float[Array, ""]]:
        """Members' values given standard normal ``noise`` [columns], and their log-density.

        With noise zero the values are the conditional means. They are differentiable in the point
        and in the noise, in reverse mode, too.
        """
        solver = self._rooted(point)
        z = self._refined(point, solver, noise, self._squares)
        sound = self._sound(point, solver.form, z, self._squares(point, z))
        values, density = self._drawn(point, solver, sound * z, noise)
        return values, sound * density

    def image(
        self,
        point: Point,
        noise: Float[Array, "columns"],
        source: Float[Array, "columns"],
    ) -> tuple[dict[str, Float[Array, "elements"]], Float[Array, ""]]:
        """A map u of noise that is :meth:`draw` but for rounding; log N(source) - log |∂u/∂noise|.

        It is quicker. The mean is as good as the factors, and if they lose digits it is another
        map; the Jacobian is that of the map which it is. ``source`` makes the noise, or is it.
        """
        solver = self._rooted(point)
        return self._drawn(point, solver, solver.draw(noise), source)

    def _drawn(
        self,
        point: Point,
        solver: Solver,
        z: Float[Array, "columns"],
        noise: Float[Array, "columns"],
    ) -> tuple[dict[str, Float[Array, "elements"]], Float[Array, ""]]:
        """Members' values at z, and their log-density from the noise that made them."""
        # Columns without noise of their own have standard normal stand-ins on both sides. Those
        # under a mask are as their prior has them, whose density nobody counts: it is taken out as
        # it stands here, since values that are rounded would leave a part of it.
        idle = jnp.where(self.form.counted, 0.0, z)
        squares = jnp.vdot(noise, noise) - jnp.vdot(idle, idle)
        return self.coordinates.values(point, z), self._density(point, solver, squares)

    def _rooted(self, point: Point) -> Solver:
        return self._factorise(point)[0].rooted()

    @property
    def triangular(self) -> bool:
        """Whether the rows are kept as triangles, and not as cross-products."""
        return isinstance(self.assembly, TriangularAssembly)

    def variances(self, point: Point) -> dict[str, Float[Array, "elements"]]:
        """Conditional variances, from how draws depend on each number of their noise."""
        solver = self._rooted(point)
        start = jnp.zeros_like(solver.form.h)
        mean, spread = jax.linearize(
            lambda xi: self.coordinates.values(point, solver.draw(xi)), start
        )
        each = jax.vmap(spread)(jnp.eye(len(start), dtype=start.dtype))
        z = solver.draw(start)
        sound = self._sound(point, solver.form, z, self._squares(point, z))
        return {name: sound * jnp.square(each[name]).sum(axis=0) for name in mean}

    def log_conditional(
        self, point: Point, values: dict[str, Float[Array, "elements"]]
    ) -> Float[Array, ""]:
        """log p(members | y, θ) at any values of the members, each flattened.

        The exponent (z - z*)ᵀ G (z - z*) is evaluated row by row, and so is what z* is refined by:
        where members are collinear, the entries of G cancel, while the rows of A L z do not.
        """
        solver = self._rooted(point)
        mean = self._refined(point, solver, jnp.zeros_like(solver.form.h), self._squares_by_row)
        z = self.coordinates.scaled(point, values)
        change = self.coordinates.centred(point, z) - self.coordinates.centred(point, mean)
        own = jnp.where(self.form.counted, z - mean, 0.0)
        squares = self._by_row(point, change) + self._prior_squares(own)
        sound = self._sound(point, solver.form, mean, self._squares(point, mean))
        return sound * self._density(point, solver, squares)

    def _squares(self, point: Point, z: Float[Array, "columns"]) -> Float[Array, ""]:
        """rᵀW r + zᵀz."""
        v = self.coordinates.centred(point, z)
        return self._prior_squares(z) + sum(t.squares(point, v) for t in self.assembly.terms)

    def _squares_over_filters(
        self, point: Point, errors: Sequence[Errors], z: Float[Array, "columns"]
    ) -> Float[Array, ""]:
        """The same where the columns of filtered chains, zero in z, minimise it."""
        numbers = {chain.number for chain in self._filters.values()}
        v = self.coordinates.centred(point, z, numbers)
        assembled = (term for term in self.assembly.terms if not isinstance(term, Walked))
        squares = self._prior_squares(z) + sum(term.squares(point, v) for term in assembled)
        for chain, error in zip(self._filters.values(), errors, strict=True):
            squares = squares + chain.squares(error, z)
        return squares

    def _least_squares(
        self, point: Point, solver: Solver, z: Float[Array, "columns"]
    ) -> Float[Array, ""]:
        """The sum of squares at the conditional mean z* of a schedule by rows.

        A float has no more digits of z* than leave rows off by ε/σ, in units of the noise. A change
        of a scale moves them by 1/σ: so the derivative, 2 rᵀ dr, would be off by ε/σ². The rest
        of z* is kept apart, and rows r at z* with it are what the derivative is taken with.
        """
        assert isinstance(self.assembly, TriangularAssembly)
        (root,), (factor,), rows_of = self.stages, solver.factors, self.assembly.triangles.values
        # (a number and not an expression, which a compiler may round otherwise the next time)
        assert isinstance(root, TriangularRoot)
        at = jax.lax.optimization_barrier(rows_of(point.omega, self.coordinates.centred(point, z)))
        rest = jnp.zeros_like(z)
        for _ in range(3):
            rest = rest - solver.solve(root.slope(factor, at, z, rest))
        rows = at + jnp.dot(factor.rows, rest, precision="highest")

        @jax.custom_jvp
        def minimum(numbers: Numbers, z: Array, rest: Array, rows: Array) -> Array:
            return jnp.vdot(rows, rows) + self._prior_squares(z + rest)

        @minimum.defjvp
        def rule(
            primals: tuple[Numbers, Array, Array, Array],
            tangents: tuple[Numbers, Array, Array, Array],
        ) -> tuple[Array, Array]:
            def moved(numbers: Numbers) -> Array:
                other = replace(point, **numbers)
                return rows_of(other.omega, self.coordinates.centred(other, primals[1]))

            change = jax.jvp(moved, primals[:1], tangents[:1])[1]
            return minimum(*primals), 2.0 * jnp.vdot(primals[3], change)

        return minimum({"omega": point.omega, "priors": point.priors}, z, rest, rows)

    def _squares_by_row(self, point: Point, z: Float[Array, "columns"]) -> Float[Array, ""]:
        """The same in a pass over all rows, each of which rounds by itself."""
        return self._by_row(point, self.coordinates.centred(point, z)) + self._prior_squares(z)

    def _prior_squares(self, z: Float[Array, "columns"]) -> Float[Array, ""]:
        """zᵀz without the columns whose prior is flat."""
        if self.form.flat.any():
            z = jnp.where(self.form.flat, 0.0, z)
        return jnp.vdot(z, z)

    def _by_row(self, point: Point, v: Float[Array, "columns+1"]) -> Float[Array, ""]:
        """rᵀW r of the rows at v."""
        return small.total(term.by_row(point, v) for term in self.assembly.terms)

    def _refined(
        self,
        point: Point,
        solver: Solver,
        noise: Float[Array, "columns"],
        squares: Callable[[Point, Array], Array],
    ) -> Float[Array, "columns"]:
        """z* + L⁻ᵀξ, with one step of iterative refinement for z*.

        The factors' own z* is off by rounding times the condition of G; what is left of the
        gradient of ``squares`` there, rest = h - G z*, cancels less, and G⁻¹ rest = L⁻ᵀ(L⁻¹ rest).
        It is zero but for rounding, whatever the point: so is its derivative.
        """
        mean = solver.draw(jnp.zeros_like(noise))
        rest = -0.5 * jax.grad(lambda z: squares(point, z))(mean)
        correction = jax.lax.stop_gradient(solver.half_solve(rest))
        return mean + solver.back(noise + correction)

    def _density(self, point: Point, solver: Solver, squares: Float[Array, ""]) -> Float[Array, ""]:
        """Log-density of members from (z - z*)ᵀ G (z - z*)."""
        log_det = 0.5 * solver.log_det
        for member, prior in zip(self.form.members, point.priors, strict=True):
            if member.random:
                log_det = log_det - log_scale(member, prior)
        return log_det - 0.5 * (squares + int(self.form.counted.sum()) * np.log(2 * np.pi))
