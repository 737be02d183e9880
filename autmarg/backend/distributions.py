"""The distributions that an emitted model needs beside NumPyro's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import Distribution, constraints

from autmarg.errors import RequestError


class _Whole(Distribution):
    """A distribution whose density is part of a joint one: a handler may only have all or none."""

    name: str

    def mask(self, mask: Any) -> Any:
        """Itself, or a zero density."""
        if isinstance(mask, Tracer) or np.ndim(mask):
            raise RequestError(self._refusal("handlers.mask has an array"))
        return self if mask else super().mask(False)  # pyright: ignore[reportArgumentType]

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Itself: refused for any other shape."""
        if tuple(batch_shape) != self.batch_shape:
            raise RequestError(self._refusal("a plate outside the transformed model is"))
        return self

    def _refusal(self, what: str) -> str:
        return (
            f"{what} over '{self.name}', which has a joint density after integration: apply it to "
            "the model before autmarg.transform"
        )


class MarginalDistribution(_Whole):
    """The density of an observed site after integration: one number for the whole site.

    Args:
        name: of the observed site.
        observed: its data; the density holds for these data only.
        log_density: () → scalar, the marginal's log-density (or zero where another site of the
            same marginal carries it).
    """

    pytree_aux_fields = ("name", "observed", "_log_density")

    def __init__(self, name: str, observed: Any, log_density: Callable[[], Any]) -> None:
        self.name, self.observed, self._log_density = name, observed, log_density
        super().__init__((), jnp.shape(observed), validate_args=False)

    @property
    def support(self) -> Any:
        """The real line; the observed value is fixed anyway."""
        return constraints.real

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """The marginal log-density, a scalar.

        Where a value is traced, NaN unless it equals the data when it is known.

        Raises:
            RequestError: the value is not the data that were compiled in.
        """
        if value is self.observed:
            return self._log_density()
        traced = isinstance(value, Tracer) or isinstance(self.observed, Tracer)
        if traced and jnp.shape(value) == jnp.shape(self.observed):
            same = (value == self.observed) | ((value != value) & (self.observed != self.observed))
            return jnp.where(jnp.all(same), self._log_density(), jnp.nan)
        if not self._same(value):
            raise RequestError(
                f"the data of '{self.name}' were replaced after autmarg.transform: expected the "
                "values the model was called with; apply condition, do or substitute to the model "
                "before transform"
            )
        return self._log_density()

    def _same(self, value: Any) -> bool:
        concrete = not isinstance(value, Tracer)
        concrete = concrete and not isinstance(self.observed, Tracer)
        return concrete and np.array_equal(
            np.asarray(value), np.asarray(self.observed), equal_nan=True
        )

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Refused: the integrated sites would come from their prior."""
        raise RequestError(
            f"drawing '{self.name}' from the transformed model would draw the integrated sites "
            "from their prior; use Predictive on the source model with what marg.recover returned"
        )


class AncestralDistribution(_Whole):
    """A kept child of integrated sites: drawn ancestrally, with its density in the marginal.

    Args:
        name: of the site.
        base: its conditional distribution at some values of the integrated sites, for its shapes
            and support.
        draw: (key, joint) → value, drawing the integrated sites first; ``joint`` says to share
            them with the other such sites of the run.
    """

    pytree_data_fields = ("base",)
    pytree_aux_fields = ("name", "_draw")

    def __init__(self, name: str, base: Distribution, draw: Callable[[Any, bool], Any]) -> None:
        self.name, self.base, self._draw = name, base, draw
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """Support of the conditional."""
        return self.base.support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Ancestral draws."""
        if not sample_shape:
            return self._draw(key, True)
        keys = jax.random.split(key, int(np.prod(sample_shape)))
        draws = jax.vmap(lambda k: self._draw(k, False))(keys)
        return draws.reshape(*sample_shape, *self.batch_shape, *self.event_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """Zero: the marginal node has it."""
        shape = jnp.shape(value)
        return jnp.zeros(shape[: len(shape) - len(self.event_shape)])


class SequentialDistribution(AncestralDistribution):
    """A latent in a scan: its density reads its own past, and the source program draws it.

    Args:
        name, base, draw: as for :class:`AncestralDistribution`.
        density: value → log-density over the batch.
    """

    pytree_aux_fields = ("_density",)

    def __init__(
        self,
        name: str,
        base: Distribution,
        draw: Callable[[Any, bool], Any],
        density: Callable[[Any], Any],
    ) -> None:
        self._density = density
        super().__init__(name, base, draw)

    def mask(self, mask: Any) -> Any:
        """As for any distribution: the density is one number an element."""
        return Distribution.mask(self, mask)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """The density of each step given the steps before it."""
        return self._density(value)
