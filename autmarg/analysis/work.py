"""What a gradient of the source's densities costs: the operations of its expressions, counted.

The parameters of a site are a slice of the tape, its log-density a jaxpr that is traced for shapes
alone. Every operation counts by the elements that it makes, matrix products and factorisations by
their multiply-adds, a loop as often as it turns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from autmarg.ir.nodes import DistributionSpec, Factor, Node, Observe, Sample
from autmarg.ir.program import Program

_Shape = tuple[int, ...]

# Nanoseconds of the reference machine, value and gradient: for an element of an operation that
# fuses, of one with a series behind it, of one that is read or written by index.
_FUSED, _SERIES, _INDEXED = 0.2, 15.0, 1.5
_TRANSCENDENTAL = 2.0
_TURNS = 10  # of a loop whose length is not known
_SERIES_OPS = {
    "lgamma", "digamma", "polygamma", "igamma", "igammac", "regularized_incomplete_beta", "erf_inv",
    "bessel_i0e", "bessel_i1e", "random_gamma_grad", "zeta",
}  # fmt: skip
_TRANSCENDENTAL_OPS = {
    "exp", "exp2", "log", "log1p", "expm1", "pow", "tanh", "logistic", "erf", "erfc", "sin", "cos",
    "tan", "atan2", "sqrt", "rsqrt", "cbrt", "sinh", "cosh", "asin", "acos", "atan",
}  # fmt: skip
_INDEXED_OPS = {
    "gather", "scatter", "scatter-add", "scatter-mul", "dynamic_slice", "dynamic_update_slice",
    "sort", "argmax", "argmin", "cumsum", "cumprod", "cummax", "cumlogsumexp",
}  # fmt: skip
_FREE_OPS = {"broadcast_in_dim", "reshape", "squeeze", "stop_gradient", "iota", "copy", "slice"}
_CUBIC_OPS = {"cholesky", "lu", "qr", "eigh", "eig", "svd", "householder_product", "schur"}


@dataclass(frozen=True)
class Work:
    """Of a value and gradient: multiply-adds of matrices, cubes of the sizes of factorisations,
    nanoseconds of elements on the reference machine, and operations."""

    products: float = 0.0
    cubes: float = 0.0
    elements: float = 0.0
    operations: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(_parts(self), _parts(other), strict=True)))

    def times(self, count: float) -> Work:
        """The same so many times."""
        return Work(*(count * a for a in _parts(self)))


def _parts(work: Work) -> tuple[float, ...]:
    return work.products, work.cubes, work.elements, work.operations


def source_work(program: Program, names: Collection[str] | None = None) -> Work:
    """What the densities of the program's sites take (of those named, if ``names`` are given)."""
    nodes = [n for n in program.nodes if names is None or n.name in names]
    nodes = [n for n in nodes if isinstance(n, Sample | Factor)]
    numbers = {v for node in nodes for v in node.numbers}
    total = sum((_density(program, node) for node in nodes), Work())
    avals = program.tape.avals
    for eqn in program.tape.slice(numbers):
        if program.tape.dependencies(eqn.outputs):
            shapes = ([tuple(avals[v].shape) for v in part] for part in (eqn.inputs, eqn.outputs))
            total += _operation(eqn.primitive.name, eqn.params, *shapes)
    return total


def jaxpr_work(closed: ClosedJaxpr) -> Work:
    """What a jaxpr takes with its gradient."""
    return _jaxpr(closed.jaxpr)


def _density(program: Program, node: Node) -> Work:
    """What the log-density of a site takes, its parameters given."""
    if not isinstance(node, Sample):
        return Work(operations=1)
    tape, spec = program.tape, node.distribution
    value = node.value if isinstance(node, Observe) else tape.inputs[node.name]
    arrays = tuple((tuple(tape.avals[v].shape), tape.avals[v].dtype) for v in (*spec.values, value))
    return _log_prob(_Structure(f"{spec.treedef} {spec.leaves}", spec), arrays)


@dataclass(frozen=True)
class _Structure:
    """A distribution's structure; those of one text are alike."""

    text: str
    spec: DistributionSpec = field(compare=False)


@lru_cache(maxsize=1024)
def _log_prob(structure: _Structure, arrays: tuple[tuple[tuple[int, ...], Any], ...]) -> Work:
    """What a log-density takes, by the shapes and types of the distribution's arrays and value."""

    def log_prob(*leaves: Any) -> Any:
        return structure.spec.unflatten(leaves[:-1]).log_prob(leaves[-1]).sum()

    try:
        with warnings.catch_warnings(action="ignore"):  # counted here, not evaluated
            closed = jax.make_jaxpr(log_prob)(*(jax.ShapeDtypeStruct(*each) for each in arrays))
    except NotImplementedError:
        return Work()  # NumPyro has no log-density for it: a transform without a Jacobian
    return _jaxpr(closed.jaxpr)


def _jaxpr(jaxpr: Jaxpr) -> Work:
    total = Work()
    for eqn in jaxpr.eqns:
        shapes = [[_shape(v.aval) for v in part] for part in (eqn.invars, eqn.outvars)]
        total += _operation(eqn.primitive.name, eqn.params, *shapes)
    return total


def _shape(aval: Any) -> _Shape:
    return tuple(getattr(aval, "shape", ()))


def _operation(
    name: str, params: Mapping[str, Any], inputs: Sequence[_Shape], outputs: Sequence[_Shape]
) -> Work:
    """What one operation on arrays of these shapes takes."""
    bodies = [_jaxpr(body) for value in params.values() for body in _bodies(value)]
    if name == "scan":
        return sum(bodies, Work()).times(params["length"])
    if name == "while":
        return sum(bodies, Work()).times(_TURNS)
    if bodies:  # calls; of branches the dearest is close to their sum
        return sum(bodies, Work())
    read, made = (sum(math.prod(s) for s in shapes) for shapes in (inputs, outputs))
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        inner = math.prod(inputs[0][axis] for axis in contracted)
        return Work(products=made * inner, elements=_FUSED * (read + made), operations=1)
    if name in _CUBIC_OPS:
        return Work(cubes=math.prod(inputs[0]) * inputs[0][-1], elements=made, operations=1)
    if name == "triangular_solve":
        products = math.prod(inputs[0]) * inputs[1][-1]
        return Work(products=products, elements=made, operations=1)
    if name in _FREE_OPS:
        return Work()
    each = _INDEXED if name in _INDEXED_OPS else _FUSED
    each = (
        _SERIES if name in _SERIES_OPS else _TRANSCENDENTAL if name in _TRANSCENDENTAL_OPS else each
    )
    reduces = name.startswith(("reduce", "arg"))
    return Work(elements=each * (read if reduces else made), operations=1)


def _bodies(value: Any) -> Iterator[Jaxpr]:
    """Jaxprs in a primitive's parameter."""
    if isinstance(value, ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _bodies(each)
