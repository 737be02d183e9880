"""What a family says of a distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from autmarg.analysis.naming import a
from autmarg.errors import ModelError


@dataclass(frozen=True, eq=False)
class Gaussian:
    """x = bijection(loc + S ε), ε ~ N(0, I), with S in one of three forms.

    * ``scale``: independent elements.
    * ``scale_tril`` [..., d, d]: S along the last ``event_dim`` axes, flattened to d elements;
      lower-triangular (what stands above its diagonal is not read), the covariance is S Sᵀ.
    * ``basis`` [..., d, k] and ``scale`` [..., k]: S = basis · diag(scale) along the same axes. The
      basis must not depend on latents. Where k < d its columns must be orthonormal, the Gaussian is
      singular, and its density is that over the subspace that the basis spans.

    Attributes:
        loc: array that broadcasts against the value (before the bijection).
        scale: standard deviations that broadcast against the value, or against [..., k].
        scale_tril: see above, or None.
        basis: see above, or None.
        event_dim: axes that ``scale_tril`` or ``basis`` spans; 0 with ``scale`` alone.
        bijection: transforms from the Gaussian to the value, innermost first.
        mask: boolean array that broadcasts against the value, or None.
        proper: false for a flat prior that cannot be drawn from; its ``mask`` is False.
        past: value → what its own earlier elements add to the mean of each element, or None; the
            value is then a chain, x = bijection(loc + past(x) + S ε), in the order of its elements.
    """

    loc: Any
    scale: Any = None
    scale_tril: Any = None
    basis: Any = None
    event_dim: int = 0
    bijection: tuple[Any, ...] = ()
    mask: Any = None
    proper: bool = True
    past: Callable[[Any], Any] | None = None

    @classmethod
    def chain(
        cls,
        transition: Any,
        *,
        scale: Any = None,
        scale_tril: Any = None,
        loc: Any = 0.0,
        initial: Any = 0.0,
    ) -> Gaussian:
        """A chain in time, x_t = A x_{t-1} + loc + S ε_t for t = 1, …, T, from x_0 = ``initial``.

        It is filtered, linear in T, where a covariance over all steps would be a dense matrix.

        Args:
            transition: A, a number (the value has T as its last axis), or matrices [..., d, d]
                (the value is [..., T, d]).
            scale: standard deviations of the innovations; broadcasts against the value.
            scale_tril: or their lower-triangular factor [..., d, d], beside a matrix A.
            loc: what each step adds; broadcasts against the value.
            initial: x_0, a number or [..., d]; it is no part of the value.

        Raises:
            ModelError: not one of ``scale`` and ``scale_tril``, or A has one axis.
        """
        matrix = jnp.ndim(transition) > 1
        if (scale is None) == (scale_tril is None) or (scale is None and not matrix):
            raise ModelError(
                "Gaussian.chain: expected one of scale and scale_tril, the latter beside a matrix "
                f"for a transition; found a transition of shape {jnp.shape(transition)}, "
                f"scale {'given' if scale is not None else 'missing'} and scale_tril "
                f"{'given' if scale_tril is not None else 'missing'}"
            )
        if jnp.ndim(transition) == 1:
            raise ModelError(
                "Gaussian.chain: expected a transition that is a number or matrices [..., d, d], "
                f"found shape {jnp.shape(transition)}"
            )

        def past(value: Any) -> Any:
            if not matrix:
                start = jnp.broadcast_to(initial, value[..., :1].shape)
                return transition * jnp.concatenate([start, value[..., :-1]], axis=-1)
            start = jnp.broadcast_to(initial, value[..., 0, :].shape)[..., None, :]
            before = jnp.concatenate([start, value[..., :-1, :]], axis=-2)
            return jnp.einsum("...ij,...tj->...ti", transition, before)

        events = 0 if scale_tril is None else 1
        return cls(loc, scale=scale, scale_tril=scale_tril, event_dim=events, past=past)


class NotGaussian(Exception):
    """A distribution that is not Gaussian; the message names its class."""

    verdict = "not Gaussian"

    def __str__(self) -> str:
        name = super().__str__()
        return f"{a(name)}, {self.verdict}"


class Unread(NotGaussian):
    """A distribution that may be Gaussian, in a form that no family reads."""

    verdict = "which autmarg does not know as Gaussian (autmarg.register_gaussian teaches it)"


Family = Callable[[Any], Gaussian]


__all__ = ["Family", "Gaussian", "NotGaussian", "Unread"]
