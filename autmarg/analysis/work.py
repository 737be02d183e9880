"""What a gradient of the source's densities costs: the operations of its expressions, counted.

The parameters of a site are a slice of the tape, its log-density a jaxpr that is traced for shapes
alone. Every operation counts by the elements that it makes, matrix products and factorisations by
their multiply-adds, a loop as often as it turns.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax

from autmarg.compat.jaxprs import REDUCTIONS, ClosedJaxpr, Jaxpr, Op, Param, bodies_of
from autmarg.ir.nodes import DistributionSpec, Factor, Node, Observe, Sample
from autmarg.ir.program import Program
from autmarg.ir.tape import Tape

_Shape = tuple[int, ...]

# Nanoseconds of the reference machine, value and gradient: for an element of an operation that
# fuses, of one with a series behind it, of one that is read or written by index.
_FUSED, _SERIES, _INDEXED = 0.2, 15.0, 1.5
_TRANSCENDENTAL = 2.0
_TURNS = 10  # of a loop whose length is not known
_SERIES_OPS = {
    Op.LGAMMA, Op.DIGAMMA, Op.POLYGAMMA, Op.IGAMMA, Op.IGAMMAC, Op.REGULARIZED_INCOMPLETE_BETA,
    Op.ERF_INV, Op.BESSEL_I0E, Op.BESSEL_I1E, Op.ZETA,
}  # fmt: skip
_TRANSCENDENTAL_OPS = {
    Op.EXP, Op.EXP2, Op.LOG, Op.LOG1P, Op.EXPM1, Op.POW, Op.TANH, Op.LOGISTIC, Op.ERF, Op.ERFC,
    Op.SIN, Op.COS, Op.TAN, Op.ATAN2, Op.SQRT, Op.RSQRT, Op.CBRT, Op.SINH, Op.COSH, Op.ASIN,
    Op.ACOS, Op.ATAN,
}  # fmt: skip
_INDEXED_OPS = {
    Op.GATHER, Op.SCATTER, Op.SCATTER_ADD, Op.SCATTER_MUL, Op.DYNAMIC_SLICE,
    Op.DYNAMIC_UPDATE_SLICE, Op.SORT, Op.ARGMAX, Op.ARGMIN, Op.CUMSUM, Op.CUMPROD, Op.CUMMAX,
    Op.CUMLOGSUMEXP,
}  # fmt: skip
_FREE_OPS = {
    Op.BROADCAST_IN_DIM, Op.RESHAPE, Op.SQUEEZE, Op.STOP_GRADIENT, Op.IOTA, Op.COPY, Op.SLICE,
}  # fmt: skip
_CUBIC_OPS = {
    Op.CHOLESKY, Op.LU, Op.QR, Op.EIGH, Op.EIG, Op.SVD, Op.HOUSEHOLDER_PRODUCT, Op.SCHUR,
}  # fmt: skip


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
    return tape_work(program.tape, numbers, total)


def tape_work(tape: Tape, numbers: Collection[int], besides: Work | None = None) -> Work:
    """What values of a tape take that are not known, ``besides`` what else there is."""
    total, avals = besides or Work(), tape.avals
    for eqn in tape.slice(numbers):
        if tape.dependencies(eqn.outputs):
            shapes = ([tuple(avals[v].shape) for v in part] for part in (eqn.inputs, eqn.outputs))
            total += _operation(eqn.op, eqn.params, *shapes)
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
    except (NotImplementedError, jax.errors.JAXTypeError):
        # NumPyro has no log-density for it (a transform without a Jacobian), or it is of a class
        # of the user's that looks at numbers, which are not given here.
        return Work()
    return _jaxpr(closed.jaxpr)


def _jaxpr(jaxpr: Jaxpr) -> Work:
    total = Work()
    for eqn in jaxpr.eqns:
        shapes = [[_shape(v.aval) for v in part] for part in (eqn.invars, eqn.outvars)]
        total += _operation(Op.of(eqn.primitive), eqn.params, *shapes)
    return total


def _shape(aval: Any) -> _Shape:
    return tuple(getattr(aval, "shape", ()))


def _operation(
    op: Op, params: Mapping[str, Any], inputs: Sequence[_Shape], outputs: Sequence[_Shape]
) -> Work:
    """What one operation on arrays of these shapes takes."""
    bodies = [_jaxpr(body) for body in bodies_of(params)]
    if op is Op.SCAN:
        return sum(bodies, Work()).times(params[Param.LENGTH])
    if op is Op.WHILE:
        return sum(bodies, Work()).times(_TURNS)
    if bodies:  # calls; of branches the dearest is close to their sum
        return sum(bodies, Work())
    read, made = (sum(math.prod(s) for s in shapes) for shapes in (inputs, outputs))
    if op is Op.DOT_GENERAL:
        (contracted, _), _ = params[Param.DIMENSION_NUMBERS]
        inner = math.prod(inputs[0][axis] for axis in contracted)
        return Work(products=made * inner, elements=_FUSED * (read + made), operations=1)
    if op in _CUBIC_OPS:
        return Work(cubes=math.prod(inputs[0]) * inputs[0][-1], elements=made, operations=1)
    if op is Op.TRIANGULAR_SOLVE:
        products = math.prod(inputs[0]) * inputs[1][-1]
        return Work(products=products, elements=made, operations=1)
    if op in _FREE_OPS:
        return Work()
    each = _INDEXED if op in _INDEXED_OPS else _FUSED
    each = _SERIES if op in _SERIES_OPS else _TRANSCENDENTAL if op in _TRANSCENDENTAL_OPS else each
    return Work(elements=each * (read if op in REDUCTIONS else made), operations=1)
