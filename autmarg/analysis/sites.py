"""Read every sample site as a Gaussian where a family can, on one folded tape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from autmarg.analysis.families import NotGaussian, as_gaussian
from autmarg.ir.nodes import Observe, Param, Sample
from autmarg.ir.program import Program


@dataclass(frozen=True)
class GaussianSite:
    """Tape numbers of a Gaussian site's parts.

    Attributes:
        loc: mean, of the site's shape.
        scale: standard deviation, of the site's shape, or None.
        scale_tril: [..., d, d], or None.
        value: the value seen through the inverse of the site's bijection.
        log_jacobian: log |d value / d Gaussian|, of the site's shape, or None where there is no
            bijection.
        mask: boolean, of the site's shape, or None.
        transformed: whether there is a bijection.
    """

    name: str
    loc: int
    scale: int | None
    scale_tril: int | None
    value: int
    log_jacobian: int | None
    mask: int | None
    transformed: bool

    @property
    def noise(self) -> int:
        """The scale, or else the covariance's factor."""
        number = self.scale if self.scale is not None else self.scale_tril
        assert number is not None
        return number

    @property
    def numbers(self) -> tuple[int, ...]:
        parts = (self.loc, self.scale, self.scale_tril, self.value, self.log_jacobian, self.mask)
        return tuple(p for p in parts if p is not None)


@dataclass(frozen=True, eq=False)
class Normalised:
    """A program on a folded tape, with every sample site read as a Gaussian where possible.

    Attributes:
        program: the program, its tape extended by the parts of Gaussian sites and folded.
        gaussian: name → parts, of the sites that are Gaussian up to a bijection.
        otherwise: name → what the site is instead, in words.
    """

    program: Program
    gaussian: dict[str, GaussianSite]
    otherwise: dict[str, str]


def normalise(program: Program) -> Normalised:
    """Extend the program's tape by the Gaussian parts of its sites, and fold what is known."""
    tape, gaussian, otherwise = program.tape, {}, {}
    for node in program.nodes:
        if not isinstance(node, Sample):
            continue
        value = node.value if isinstance(node, Observe) else tape.inputs[node.name]
        reader = _Reader(node)
        try:
            tape, numbers = tape.extend(reader, (*node.distribution.values, value))
        except NotGaussian as reason:
            otherwise[node.name] = str(reason)
            continue
        parts = dict(zip(reader.names, numbers, strict=True))
        gaussian[node.name] = GaussianSite(
            node.name,
            transformed=reader.transformed,
            **{k: parts.get(k) for k in ("scale", "scale_tril", "log_jacobian", "mask")},
            **{k: parts[k] for k in ("loc", "value")},
        )
    roots = [v for node in program.nodes for v in _values(node)]
    roots += [v for site in gaussian.values() for v in site.numbers]
    return Normalised(replace(program, tape=tape.folded(roots)), gaussian, otherwise)


def _values(node: Any) -> list[int]:
    values = list(node.distribution.values) if isinstance(node, Sample) else []
    if isinstance(node, Param):
        values += [*node.options.values, node.initial]
    values += [getattr(node, "value", None), getattr(node, "scale", None)]
    return [v for v in values if isinstance(v, int)]


class _Reader:
    """The traced function *distribution leaves, value → Gaussian parts* of one site."""

    def __init__(self, node: Sample) -> None:
        self.node = node
        self.names: list[str] = []
        self.transformed = False

    def __call__(self, *arrays: Any) -> list[Any]:
        *leaves, value = arrays
        shape = self.node.shape
        g = as_gaussian(self.node.distribution.unflatten(leaves))
        dtype = jnp.result_type(g.loc, float)
        parts = {"loc": jnp.broadcast_to(jnp.asarray(g.loc, dtype), shape)}
        if g.scale is not None:
            parts["scale"] = jnp.broadcast_to(jnp.asarray(g.scale, dtype), shape)
        else:
            parts["scale_tril"] = jnp.asarray(g.scale_tril, dtype)
        if g.bijection:
            self.transformed = True
            parts["log_jacobian"] = jnp.zeros(shape, dtype)
            for transform in reversed(g.bijection):
                before = transform.inv(value)
                parts["log_jacobian"] += transform.log_abs_det_jacobian(before, value)
                value = before
        parts["value"] = jnp.broadcast_to(jnp.asarray(value, dtype), shape)
        if g.mask is not None:
            event = (1,) * len(self.node.distribution.event_shape)
            mask = jnp.reshape(g.mask, (*g.mask.shape, *event))
            parts["mask"] = jnp.broadcast_to(mask, shape)
        self.names = list(parts)
        return list(parts.values())
