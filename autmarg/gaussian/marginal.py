"""A linear Gaussian system with its schedule: marginal density and conditional of its members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from autmarg.compat.double import in_double
from autmarg.compat.programs import traced_once
from autmarg.gaussian.affine import AffineForm, Point
from autmarg.gaussian.schedule import Schedule

if TYPE_CHECKING:
    from jaxtyping import Float


class System(Protocol):
    """What evaluates the opaque numbers of a form: ``inputs`` names the values it needs."""

    @property
    def form(self) -> AffineForm: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    def point(self, values: Mapping[str, ArrayLike]) -> Point:
        """The form's numbers at values of its inputs."""
        ...


class Eliminated(Protocol):
    """A system with its order of elimination."""

    @property
    def system(self) -> System: ...

    @property
    def schedule(self) -> Schedule: ...

    def variances(self) -> Schedule:
        """The order of elimination of ``form.with_elements()``."""
        ...


@dataclass(frozen=True, eq=False)
class GaussianMarginal:
    """log p(y | θ) and p(members | y, θ), as functions of the kept latents by name.

    ``variances`` makes the schedule of ``form.with_elements()``, when it is first asked for.
    """

    system: System
    schedule: Schedule
    variances: Callable[[], Schedule]

    @classmethod
    def of(cls, group: Eliminated) -> GaussianMarginal:
        """The density of what has an order of elimination."""
        return cls(group.system, group.schedule, group.variances)

    @property
    def columns(self) -> int:
        """Number of elements integrated out."""
        return self.schedule.form.columns

    @property
    def rows(self) -> int:
        """Number of observed (and kept children's) elements, less those of flat priors."""
        return self.schedule.assembly.rows

    @property
    def _recovery(self) -> Schedule:
        """The schedule that draws: by rows where there is one."""
        return self.schedule.exact or self.schedule

    @property
    def flat(self) -> dict[str, np.ndarray]:
        """Of members with a flat prior, which elements have it."""
        members = self.schedule.form.members
        return {m.name: m.flat for m in members if m.flat is not None}

    @property
    def inputs(self) -> frozenset[str]:
        """Names of what the density depends on."""
        return frozenset(self.system.inputs)

    def parts(self, values: Mapping[str, ArrayLike]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """K and Q of log p(y | θ) = K - Q/2, Q the sum of squares at the conditional mean."""
        return self._compiled_parts(self._given(values))

    def log_density(self, values: Mapping[str, ArrayLike]) -> Float[Array, ""]:
        """log p(y | θ), a scalar."""
        return self._compiled(self._given(values))

    # NumPyro calls them on numbers while it initialises, where each operation would be compiled.
    @cached_property
    def _compiled(self) -> Callable[[dict[str, ArrayLike]], Array]:
        return traced_once(in_double(lambda v: self.schedule.log_density(self.system.point(v))))

    @cached_property
    def _compiled_parts(self) -> Callable[[dict[str, ArrayLike]], tuple[Array, Array]]:
        return traced_once(in_double(lambda v: self.schedule.parts(self.system.point(v))))

    def draw(
        self, values: Mapping[str, ArrayLike], key: Array, stretch: float = 1.0
    ) -> tuple[dict[str, Float[Array, "elements"]], Float[Array, ""]]:
        """Members (flattened), and their log-density from the noise that made them.

        ``stretch`` multiplies the noise.
        """
        noise = jax.random.normal(key, (self.columns,), dtype=float)
        return self.drawn(values, stretch * noise)

    def drawn(
        self, values: Mapping[str, ArrayLike], noise: Float[Array, "columns"]
    ) -> tuple[dict[str, Float[Array, "elements"]], Float[Array, ""]]:
        """Members (flattened) as a function of standard normal noise [columns]; their log-density.

        They are differentiable in the values and in the noise, in reverse mode, too.
        """
        return self._double_draw(self._given(values), noise)

    @cached_property
    def _double_draw(
        self,
    ) -> Callable[[dict[str, ArrayLike], Array], tuple[dict[str, Array], Array]]:
        return in_double(lambda v, noise: self._recovery.draw(self.system.point(v), noise))

    def image(
        self,
        values: Mapping[str, ArrayLike],
        noise: Float[Array, "columns"],
        source: Float[Array, "columns"] | None = None,
    ) -> tuple[dict[str, Float[Array, "elements"]], Float[Array, ""]]:
        """As :meth:`drawn` but for rounding, and quicker; see :meth:`.Schedule.image`."""
        return self._double_image(self._given(values), noise, noise if source is None else source)

    @cached_property
    def _double_image(
        self,
    ) -> Callable[[dict[str, ArrayLike], Array, Array], tuple[dict[str, Array], Array]]:
        return in_double(lambda v, x, z: self.schedule.image(self.system.point(v), x, z))

    def lost(self, values: Mapping[str, ArrayLike]) -> Float[Array, ""]:
        """Nats by which rounding may move :meth:`log_density`; see :meth:`.Schedule.lost`."""
        return self._double_lost(self._given(values))

    @cached_property
    def _double_lost(self) -> Callable[[dict[str, ArrayLike]], Array]:
        return in_double(lambda v: self.schedule.lost(self.system.point(v)))

    def moments(
        self, values: Mapping[str, ArrayLike]
    ) -> dict[str, tuple[Float[Array, "elements"], Float[Array, "elements"]]]:
        """Conditional mean and variance of each member, flattened."""
        return self._double_moments(self._given(values))

    @cached_property
    def _double_moments(
        self,
    ) -> Callable[[dict[str, ArrayLike]], dict[str, tuple[Array, Array]]]:
        return in_double(lambda v: self._moments(self.system.point(v)))

    def _moments(
        self, point: Point
    ) -> dict[str, tuple[Float[Array, "elements"], Float[Array, "elements"]]]:
        """Conditional mean and variance of each member, flattened, at a point."""
        form = self.schedule.form
        noise = jnp.zeros(form.columns, point.omega.dtype)
        means, _ = self._recovery.draw(point, noise)
        if self._recovery.triangular:
            found = self._recovery.variances(point)
            return {name: (mean, found[name]) for name, mean in means.items()}
        centre = -jnp.concatenate([noise[:0], *(means[m.name] for m in form.members)])
        starts = np.cumsum([0, *(m.elements for m in form.members)])
        whole = point.omega[:]

        def log_density(precision: Array) -> Array:
            omega = jnp.concatenate([whole, precision, centre])
            return self._elements.log_density(replace(point, omega=omega))

        variances = -2.0 * jax.grad(log_density)(jnp.zeros_like(centre))
        return {
            m.name: (means[m.name], variances[start : start + m.elements])
            for m, start in zip(form.members, starts, strict=False)
        }

    @cached_property
    def _elements(self) -> Schedule:
        return self.variances()

    def log_conditional(
        self, values: Mapping[str, ArrayLike], members: Mapping[str, ArrayLike]
    ) -> Float[Array, ""]:
        """log p(members | y, θ) at any values of the members."""
        flat = {name: jnp.ravel(value) for name, value in members.items()}
        return self._double_conditional(self._given(values), flat)

    @cached_property
    def _double_conditional(self) -> Callable[[dict[str, ArrayLike], dict[str, Array]], Array]:
        return in_double(lambda v, own: self._recovery.log_conditional(self.system.point(v), own))

    def _given(self, values: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        return {name: values[name] for name in self.system.inputs}
