"""Read every sample site as a Gaussian where a family can, on one folded tape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from numpyro.distributions.util import sum_rightmost

from autmarg.analysis.families import Gaussian, NotGaussian, as_gaussian
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program


@dataclass(frozen=True)
class GaussianSite:
    """Tape numbers of a Gaussian site's parts.

    Elements are those of the Gaussian, before the site's bijection, if it has one; a site with
    ``scale_tril`` or ``basis`` has groups of d of them (see
    :class:`~autmarg.analysis.families.Gaussian`), G in number.

    Attributes:
        loc: mean, of the elements' shape.
        scale: standard deviations, of the elements' shape, [G|1, k] with a basis, or None.
        scale_tril: [G|1, d, d], or None.
        basis: [G|1, d, k], or None.
        value: the value seen through the inverse of the site's bijection.
        log_jacobian: log |d value / d Gaussian|, a scalar, or None where there is no bijection.
        mask: boolean, of the elements' shape, or None.
        bijection: names of the transforms of a bijection, which are not read as linear; or "".
        singular: whether k < d.
    """

    name: str
    loc: int
    scale: int | None
    scale_tril: int | None
    basis: int | None
    value: int
    log_jacobian: int | None
    mask: int | None
    bijection: str
    singular: bool

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them."""
        parts = (
            self.loc, self.scale, self.scale_tril, self.basis, self.value, self.log_jacobian,
            self.mask,
        )  # fmt: skip
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
            bijection=reader.bijection,
            singular=reader.singular,
            **{k: parts.get(k) for k in ("scale", "scale_tril", "basis", "log_jacobian", "mask")},
            **{k: parts[k] for k in ("loc", "value")},
        )
    roots = [v for node in program.nodes for v in node.numbers]
    roots += [v for site in gaussian.values() for v in site.numbers]
    tape = tape.folded(roots)
    nodes = tuple(_scaled(node, tape.constants) for node in program.nodes)
    return Normalised(replace(program, nodes=nodes, tape=tape), gaussian, otherwise)


def _scaled(node: Any, constants: Mapping[int, Any]) -> Any:
    """The node, without a scale that is known to be one."""
    if not isinstance(node, Sample) or node.scale is None or node.scale not in constants:
        return node
    return replace(node, scale=None) if (constants[node.scale] == 1).all() else node


class _Reader:
    """The traced function *distribution leaves, value → Gaussian parts* of one site."""

    def __init__(self, node: Sample) -> None:
        self.node = node
        self.names: list[str] = []
        self.bijection = ""
        self.singular = False

    def __call__(self, *arrays: Any) -> list[Any]:
        *leaves, value = arrays
        g = as_gaussian(self.node.distribution.unflatten(leaves))
        dtype = jnp.result_type(float)
        value = jnp.broadcast_to(jnp.asarray(value, dtype), self.node.shape)
        mask, own = g.mask, {}
        if g.bijection:
            self.bijection = ", ".join(type(t).__name__ for t in g.bijection)
            value, own["log_jacobian"], mask = _through(g, value)
        if g.basis is not None:
            self.singular = g.basis.shape[-1] < g.basis.shape[-2]
        parts = _noise(g, value.shape) | own
        loc = g.loc if g.past is None else g.loc + g.past(value)
        parts |= {"loc": jnp.broadcast_to(loc, value.shape), "value": value}
        parts = {name: jnp.asarray(part, dtype) for name, part in parts.items()}
        if mask is not None:
            parts["mask"] = jnp.broadcast_to(mask, value.shape)
        self.names = list(parts)
        return list(parts.values())


def _through(g: Gaussian, value: Any) -> tuple[Any, Any, Any]:
    """The value before the bijection, log |Jacobian| of what the mask leaves in, and the mask."""
    events = _event_dim(g)
    jacobian, inner, dims = jnp.zeros(value.shape[: value.ndim - events]), value, events
    for transform in reversed(g.bijection):
        before = transform.inv(inner)
        rest = dims - transform.codomain.event_dim
        jacobian += sum_rightmost(transform.log_abs_det_jacobian(before, inner), rest)
        inner, dims = before, transform.domain.event_dim + rest
    mask = g.mask
    if mask is not None:
        mask = jnp.broadcast_to(mask, value.shape)[(..., *(0,) * events)]
        jacobian = jnp.where(mask, jacobian, 0.0)
        mask = mask.reshape(*mask.shape, *(1,) * dims)
    return inner, jacobian.sum(), mask


def _event_dim(g: Gaussian) -> int:
    """Trailing axes of the value that belong to one draw of the Gaussian."""
    dims = g.event_dim
    for transform in g.bijection:
        domain, codomain = transform.domain.event_dim, transform.codomain.event_dim
        dims = codomain + max(dims - domain, 0)
    return dims


def _noise(g: Gaussian, shape: tuple[int, ...]) -> dict[str, Any]:
    """Scale, factor and basis of a Gaussian whose elements have ``shape``."""
    batch = shape[: len(shape) - g.event_dim]

    def grouped(array: Any, axes: int) -> Any:
        array = jnp.asarray(array)
        lead, own = array.shape[: array.ndim - axes], array.shape[array.ndim - axes :]
        if math.prod(lead) != 1:
            array = jnp.broadcast_to(array, (*batch, *own))
        return array.reshape(-1, *own)

    if g.basis is not None:
        k = g.basis.shape[-1]
        scale = jnp.broadcast_to(g.scale, jnp.broadcast_shapes(jnp.shape(g.scale), (k,)))
        return {"scale": grouped(scale, 1), "basis": grouped(g.basis, 2)}
    if g.scale_tril is not None:
        return {"scale_tril": jnp.tril(grouped(g.scale_tril, 2))}
    return {"scale": jnp.broadcast_to(g.scale, shape)}
