"""Read every sample site as a Gaussian where a family can, on one folded tape."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.families import FAMILIES, Gaussian, NotGaussian, as_gaussian
from autmarg.compat.numpyro import sum_rightmost
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.program import Program
from autmarg.ir.shapes import broadcasts
from autmarg.ir.tape import Tape


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
        proper: whether a draw of it can be had (not of an improper prior).
        power: the known positive s of ``handlers.scale``, or None where there is none: one number,
            or one for each element (each group of d), 1 where a mask is. Scales and factors are
            divided by √s already: s log N(x; m, v) = log N(x; m, v/s) + c(s, v).
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
    proper: bool = True
    power: np.ndarray | None = None

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


_NORMALISED = WeakKeyDictionary[Program, tuple[Any, Normalised]]()


def normalise(program: Program) -> Normalised:
    """Extend the program's tape by the Gaussian parts of its sites, and fold what is known.

    Folding compiles, and several passes ask: it is done once for a program.
    """
    families = tuple(FAMILIES.items())
    known = _NORMALISED.get(program)
    if known is None or known[0] != families:
        known = _NORMALISED[program] = families, _normalised(program)
    return known[1]


def _normalised(program: Program) -> Normalised:
    tape, gaussian, otherwise = program.tape, {}, {}
    for node in program.nodes:
        if not isinstance(node, Sample):
            continue
        value = node.value if isinstance(node, Observe) else tape.inputs[node.name]
        read = _parts_of(node, _known_scale(tape, node))
        try:
            inputs = (*node.distribution.values, value)
            tape, numbers, seen = tape.extend_staged(read, inputs)
        except NotGaussian as reason:
            otherwise[node.name] = str(reason)
            continue
        parts = dict(zip(seen.parts, numbers, strict=True))
        gaussian[node.name] = GaussianSite(
            node.name,
            bijection=seen.bijection,
            singular=seen.singular,
            proper=seen.proper,
            power=seen.power,
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
    factor = constants[node.scale]
    one = (factor == 1).all() and broadcasts(factor.shape, _batch(node))
    return replace(node, scale=None) if one else node


def _batch(node: Sample) -> tuple[int, ...]:
    """The shape of a site's log-density."""
    return node.shape[: len(node.shape) - len(node.distribution.event_shape)]


def _known_scale(tape: Tape, node: Sample) -> np.ndarray | None:
    """The known factor of a site's log-density, [batch shape] or one number; None for none.

    None, too, where it is negative, infinite or NaN, has more axes than the log-density (which
    NumPyro would count several times), or is zero over elements of a latent.
    """
    if node.scale is None or tape.dependencies([node.scale]):
        return None
    with jax.ensure_compile_time_eval():
        factor = np.asarray(tape.evaluate([node.scale], {})[0], np.float64)
    batch = _batch(node)
    enough = (factor >= 0) if isinstance(node, Observe) else (factor > 0)
    if not enough.all() or not np.isfinite(factor).all() or not broadcasts(factor.shape, batch):
        return None
    if factor.size and (factor == factor.flat[0]).all():
        return None if factor.flat[0] == 1 else factor.reshape(-1)[0]
    return np.broadcast_to(factor, batch)


class _Seen(NamedTuple):
    """What is known of a Gaussian site beside the arrays of its parts; see GaussianSite."""

    parts: tuple[str, ...]
    bijection: str
    singular: bool
    proper: bool
    power: np.ndarray | None


def _parts_of(node: Sample, factor: np.ndarray | None) -> Callable[..., tuple[_Seen, list[Any]]]:
    """The function *distribution leaves, value → Gaussian parts* of one site.

    ``factor`` is the known factor of its log-density, or None.
    """
    dtype = jnp.result_type(float)

    def read(*arrays: Any) -> tuple[_Seen, list[Any]]:
        *leaves, value = arrays
        g = as_gaussian(node.distribution.unflatten(leaves))
        value = jnp.broadcast_to(jnp.asarray(value, dtype), node.shape)
        mask, own, scale = g.mask, {}, factor
        if scale is not None:
            if scale.ndim:
                events = len(node.distribution.event_shape)
                scale = scale.reshape(*scale.shape, *(1,) * events)
            if not scale.all():  # what a scale of zero takes out is masked
                mask = scale > 0 if mask is None else mask & (scale > 0)
                scale = np.where(scale > 0, scale, 1.0)
        if g.bijection:
            value, own["log_jacobian"], mask, scale = _through(g, value, mask, scale)
        noise, power = _tempered(g, _noise(g, value.shape), value.shape, mask, scale)
        loc = g.loc if g.past is None else g.loc + g.past(value)
        parts = noise | own | {"loc": jnp.broadcast_to(loc, value.shape), "value": value}
        parts = {name: jnp.asarray(part, dtype) for name, part in parts.items()}
        if mask is not None:
            parts["mask"] = jnp.broadcast_to(mask, value.shape)
        bijection = ", ".join(type(t).__name__ for t in g.bijection)
        singular = g.basis is not None and g.basis.shape[-1] < g.basis.shape[-2]
        seen = _Seen(tuple(parts), bijection, singular, g.proper, power)
        return seen, list(parts.values())

    return read


def _tempered(
    g: Gaussian, noise: dict[str, Any], shape: tuple[int, ...], mask: Any, factor: np.ndarray | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Scales or factors over √s, of the elements that a mask leaves in; and the powers s."""
    if factor is None:
        return noise, None
    first = (..., *(0,) * g.event_dim)  # of each group
    if factor.ndim:
        factor = np.broadcast_to(factor, shape)[first]
    root: Any = np.sqrt(factor)
    if mask is not None:
        root = jnp.where(jnp.broadcast_to(mask, shape)[first], root, 1.0)
    tempered = dict(noise)
    for name, axes in (("scale_tril", 2), ("scale", 1 if g.basis is not None else 0)):
        if name in noise and g.event_dim and jnp.ndim(root):
            tempered[name] = noise[name] / jnp.reshape(root, (-1, *(1,) * axes))
        elif name in noise:
            tempered[name] = noise[name] / root
    return tempered, factor.reshape(-1)


def _through(
    g: Gaussian, value: Any, mask: Any, factor: np.ndarray | None
) -> tuple[Any, Any, Any, Any]:
    """The value before the bijection; log |Jacobian|, times a known factor, of what the mask leaves
    in; the mask and the factor."""
    events = _event_dim(g)
    first = (..., *(0,) * events)
    jacobian, inner, dims = jnp.zeros(value.shape[: value.ndim - events]), value, events
    for transform in reversed(g.bijection):
        before = transform.inv(inner)
        rest = dims - transform.codomain.event_dim
        jacobian += sum_rightmost(transform.log_abs_det_jacobian(before, inner), rest)
        inner, dims = before, transform.domain.event_dim + rest
    if factor is not None:
        factor = np.broadcast_to(factor, value.shape)[first] if factor.ndim else factor
        jacobian = factor * jacobian
        factor = factor.reshape(*factor.shape, *(1,) * dims) if factor.ndim else factor
    if mask is not None:
        mask = jnp.broadcast_to(mask, value.shape)[first]
        jacobian = jnp.where(mask, jacobian, 0.0)
        mask = mask.reshape(*mask.shape, *(1,) * dims)
    return inner, jacobian.sum(), mask, factor


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
