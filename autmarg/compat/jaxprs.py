"""JAX's jaxprs: their classes, and the primitives and parameters that autmarg reads.

:class:`Op` is the table. JAX names primitives and parameters as it likes from version to version; a
canary test holds every row against the version installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.core import trace_state_clean
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, jaxpr_as_fun, primitives
from jax.interpreters.partial_eval import dce_jaxpr


class Param(StrEnum):
    """Names of parameters of primitives."""

    AXES = "axes"
    AXIS = "axis"
    BODY_JAXPR = "body_jaxpr"
    BODY_NCONSTS = "body_nconsts"
    BRANCHES = "branches"
    BROADCAST_DIMENSIONS = "broadcast_dimensions"
    BWD = "bwd"
    CALL_JAXPR = "call_jaxpr"
    COND_JAXPR = "cond_jaxpr"
    COND_NCONSTS = "cond_nconsts"
    CONST_LENGTHS = "const_lengths"
    DIMENSION = "dimension"
    DIMENSION_NUMBERS = "dimension_numbers"
    DIMENSIONS = "dimensions"
    DTYPE = "dtype"
    FILL_VALUE = "fill_value"
    JAXPR = "jaxpr"
    LEFT_SIDE = "left_side"
    LENGTH = "length"
    LIMIT_INDICES = "limit_indices"
    MODE = "mode"
    NEW_DTYPE = "new_dtype"
    NUM_CARRY = "num_carry"
    NUM_CONSTS = "num_consts"
    PERMUTATION = "permutation"
    REVERSE = "reverse"
    SHAPE = "shape"
    SLICE_SIZES = "slice_sizes"
    START_INDICES = "start_indices"
    STRIDES = "strides"
    UPDATE_JAXPR = "update_jaxpr"
    Y = "y"


class Op(StrEnum):
    """A primitive by its name, with the parameters that autmarg reads of it.

    Attributes:
        parameters: names of those parameters.
    """

    parameters: tuple[Param, ...]

    def __new__(cls, name: str, *parameters: Param) -> Op:
        """A row: the name, then the parameters that are read."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.parameters = parameters
        return member

    @classmethod
    def of(cls, primitive: Primitive) -> Op:
        """The row of a primitive, ``OTHER`` for one that autmarg does not read."""
        return _ROWS.get(primitive.name, cls.OTHER)

    OTHER = ""
    # Element by element
    ABS = "abs"
    ACOS = "acos"
    ADD = "add"
    ADD_ANY = "add_any"
    AND = "and"
    ASIN = "asin"
    ATAN = "atan"
    ATAN2 = "atan2"
    BESSEL_I0E = "bessel_i0e"
    BESSEL_I1E = "bessel_i1e"
    CBRT = "cbrt"
    CEIL = "ceil"
    CLAMP = "clamp"
    COMPLEX = "complex"
    CONJ = "conj"
    CONVERT_ELEMENT_TYPE = "convert_element_type", Param.NEW_DTYPE
    COPY = "copy"
    COS = "cos"
    COSH = "cosh"
    DIGAMMA = "digamma"
    DIV = "div"
    EQ = "eq"
    ERF = "erf"
    ERFC = "erfc"
    ERF_INV = "erf_inv"
    EXP = "exp"
    EXP2 = "exp2"
    EXPM1 = "expm1"
    FLOOR = "floor"
    GE = "ge"
    GT = "gt"
    IGAMMA = "igamma"
    IGAMMAC = "igammac"
    IMAG = "imag"
    INTEGER_POW = "integer_pow", Param.Y
    IS_FINITE = "is_finite"
    LE = "le"
    LGAMMA = "lgamma"
    LOG = "log"
    LOG1P = "log1p"
    LOGISTIC = "logistic"
    LT = "lt"
    MAX = "max"
    MIN = "min"
    MUL = "mul"
    NE = "ne"
    NEG = "neg"
    NEXTAFTER = "nextafter"
    NOT = "not"
    OPTIMIZATION_BARRIER = "optimization_barrier"
    OR = "or"
    POLYGAMMA = "polygamma"
    POW = "pow"
    REAL = "real"
    REGULARIZED_INCOMPLETE_BETA = "regularized_incomplete_beta"
    REM = "rem"
    ROUND = "round"
    RSQRT = "rsqrt"
    SELECT_N = "select_n"
    SIGN = "sign"
    SIN = "sin"
    SINH = "sinh"
    SQRT = "sqrt"
    SQUARE = "square"
    STOP_GRADIENT = "stop_gradient"
    SUB = "sub"
    TAN = "tan"
    TANH = "tanh"
    XOR = "xor"
    ZETA = "zeta"
    # Entries moved
    BROADCAST_IN_DIM = "broadcast_in_dim", Param.SHAPE, Param.BROADCAST_DIMENSIONS
    CONCATENATE = "concatenate", Param.DIMENSION
    DYNAMIC_SLICE = "dynamic_slice", Param.SLICE_SIZES
    DYNAMIC_UPDATE_SLICE = "dynamic_update_slice"
    GATHER = "gather", Param.DIMENSION_NUMBERS, Param.SLICE_SIZES, Param.MODE, Param.FILL_VALUE
    IOTA = "iota", Param.DTYPE, Param.SHAPE, Param.DIMENSION
    PAD = "pad"
    RESHAPE = "reshape"
    REV = "rev"
    SCATTER = "scatter", Param.UPDATE_JAXPR
    SCATTER_ADD = "scatter-add"
    SCATTER_MUL = "scatter-mul"
    SCATTER_SUB = "scatter-sub"
    SLICE = "slice", Param.START_INDICES, Param.LIMIT_INDICES, Param.STRIDES
    SORT = "sort"
    SPLIT = "split"
    SQUEEZE = "squeeze", Param.DIMENSIONS
    TILE = "tile"
    TOP_K = "top_k"
    TRANSPOSE = "transpose", Param.PERMUTATION
    # Sums, products, and other reductions
    ARGMAX = "argmax"
    ARGMIN = "argmin"
    BCOO_DOT_GENERAL = "bcoo_dot_general"
    CONV_GENERAL_DILATED = "conv_general_dilated"
    CUMLOGSUMEXP = "cumlogsumexp"
    CUMMAX = "cummax"
    CUMPROD = "cumprod"
    CUMSUM = "cumsum", Param.AXIS, Param.REVERSE
    DOT_GENERAL = "dot_general", Param.DIMENSION_NUMBERS
    FFT = "fft"
    REDUCE = "reduce"
    REDUCE_AND = "reduce_and"
    REDUCE_MAX = "reduce_max"
    REDUCE_MIN = "reduce_min"
    REDUCE_OR = "reduce_or"
    REDUCE_PROD = "reduce_prod"
    REDUCE_SUM = "reduce_sum", Param.AXES
    REDUCE_WINDOW = "reduce_window"
    REDUCE_WINDOW_MAX = "reduce_window_max"
    REDUCE_WINDOW_MIN = "reduce_window_min"
    REDUCE_WINDOW_SUM = "reduce_window_sum"
    REDUCE_XOR = "reduce_xor"
    # Matrices
    CHOLESKY = "cholesky"
    CUSTOM_LINEAR_SOLVE = "custom_linear_solve", Param.CONST_LENGTHS
    EIG = "eig"
    EIGH = "eigh"
    HOUSEHOLDER_PRODUCT = "householder_product"
    LU = "lu"
    QR = "qr"
    SCHUR = "schur"
    SVD = "svd"
    TRIANGULAR_SOLVE = "triangular_solve", Param.LEFT_SIDE
    # Calls, branches and loops
    COND = "cond", Param.BRANCHES
    CUSTOM_JVP_CALL = "custom_jvp_call", Param.CALL_JAXPR
    CUSTOM_VJP_CALL = "custom_vjp_call", Param.CALL_JAXPR, Param.BWD
    JIT = "jit", Param.JAXPR
    REMAT2 = "remat2", Param.JAXPR
    SCAN = "scan", Param.LENGTH, Param.REVERSE, Param.NUM_CONSTS, Param.NUM_CARRY, Param.JAXPR
    WHILE = (
        "while", Param.COND_JAXPR, Param.BODY_JAXPR, Param.COND_NCONSTS, Param.BODY_NCONSTS,
    )  # fmt: skip
    # In some versions of JAX
    CHECKPOINT = "checkpoint"
    CLOSED_CALL = "closed_call"
    COPY_P = "copy_p"
    CORE_CALL = "core_call"
    EXPAND_DIMS = "expand_dims"
    PJIT = "pjit"
    STACK = "stack"


_ROWS = {op.value: op for op in Op}
IN_SOME_VERSIONS = frozenset(
    {Op.CHECKPOINT, Op.CLOSED_CALL, Op.COPY_P, Op.CORE_CALL, Op.EXPAND_DIMS, Op.PJIT, Op.STACK}
)
# Calls that say nothing but what they call.
INLINED = frozenset({Op.JIT, Op.PJIT, Op.CLOSED_CALL, Op.CORE_CALL})
# Calls of functions with a derivative of their own.
WITH_DERIVATIVE = frozenset({Op.CUSTOM_JVP_CALL, Op.CUSTOM_VJP_CALL})
# Element k of the result is a function of element k of each operand (one number serves for all).
ELEMENTWISE = frozenset({
    Op.ABS, Op.ACOS, Op.ADD, Op.ADD_ANY, Op.AND, Op.ASIN, Op.ATAN, Op.ATAN2, Op.BESSEL_I0E,
    Op.BESSEL_I1E, Op.CBRT, Op.CEIL, Op.CLAMP, Op.COMPLEX, Op.CONJ, Op.CONVERT_ELEMENT_TYPE,
    Op.COPY, Op.COPY_P, Op.COS, Op.COSH, Op.DIGAMMA, Op.DIV, Op.EQ, Op.ERF, Op.ERFC, Op.ERF_INV,
    Op.EXP, Op.EXP2, Op.EXPM1, Op.FLOOR, Op.GE, Op.GT, Op.IGAMMA, Op.IGAMMAC, Op.IMAG,
    Op.INTEGER_POW, Op.IS_FINITE, Op.LE, Op.LGAMMA, Op.LOG, Op.LOG1P, Op.LOGISTIC, Op.LT, Op.MAX,
    Op.MIN, Op.MUL, Op.NE, Op.NEG, Op.NEXTAFTER, Op.NOT, Op.OR, Op.POLYGAMMA, Op.POW, Op.REAL,
    Op.REGULARIZED_INCOMPLETE_BETA, Op.REM, Op.ROUND, Op.RSQRT, Op.SELECT_N, Op.SIGN, Op.SIN,
    Op.SINH, Op.SQRT, Op.SQUARE, Op.STOP_GRADIENT, Op.SUB, Op.TAN, Op.TANH, Op.XOR, Op.ZETA,
})  # fmt: skip
_UNEXPORTED: tuple[Callable[[Any], Any], ...] = (
    lambda a: jnp.stack([a, a]),
    lambda a: jnp.unstack(a),
    lambda a: jnp.tile(a, 2),
    lambda a: jax.lax.split(a, (1, 1)),
    lambda a: jax.lax.platform_dependent(a, default=jnp.sin, cpu=jnp.cos),
)
COMPARISONS = frozenset({Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE})
REDUCTIONS = frozenset({
    Op.ARGMAX, Op.ARGMIN, Op.REDUCE, Op.REDUCE_AND, Op.REDUCE_MAX, Op.REDUCE_MIN, Op.REDUCE_OR,
    Op.REDUCE_PROD, Op.REDUCE_SUM, Op.REDUCE_WINDOW, Op.REDUCE_WINDOW_MAX, Op.REDUCE_WINDOW_MIN,
    Op.REDUCE_WINDOW_SUM, Op.REDUCE_XOR,
})  # fmt: skip


def body_of(params: Mapping[str, Any]) -> ClosedJaxpr:
    """The program that an equation's parameters hold (a loop's body, a call's), closed."""
    inner: Any = params.get(Param.JAXPR, params.get(Param.CALL_JAXPR))
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def reads(function: Callable[..., Any], *avals: Any) -> tuple[bool, ...]:
    """Which of its arguments a function reads, leaf by leaf, once dead code is removed.

    Args:
        function: of arrays, or pytrees of them.
        avals: the arguments' shapes and types.
    """
    jaxpr = jax.make_jaxpr(function)(*avals).jaxpr
    return tuple(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1])


def live(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The same function without what no output needs, inside of loops, too."""
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


def bodies_of(value: Any) -> Iterator[Jaxpr]:
    """All programs in an equation's parameters, or in the value of one."""
    if isinstance(value, ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, Jaxpr):
        yield value
    elif isinstance(value, Mapping):
        yield from bodies_of(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from bodies_of(each)


def largest(jaxpr: Jaxpr) -> int:
    """How many numbers the largest array has that a program computes, inner ones included."""
    found = 0
    for equation in jaxpr.eqns:
        sizes = (getattr(v.aval, "size", 0) for v in equation.outvars)
        found = max(found, *sizes, *map(largest, bodies_of(equation.params)), 0)
    return found


def frames_of(equation: Any) -> tuple[Any, ...]:
    """Frames of the Python code that made an equation of a jaxpr, innermost first.

    They have a ``file_name``, a ``line_num`` and a ``function_name``.
    """
    traceback = getattr(equation.source_info, "traceback", None)
    return () if traceback is None else tuple(traceback.frames)


def own_backward(params: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The user's function that goes backwards in a call with a derivative of its own, if any."""
    rule = params.get(Param.BWD)
    return None if rule is None else rule.f


def bind(primitive: Primitive, params: Mapping[str, Any], *values: Any) -> list[Any]:
    """The outputs of a primitive at concrete or traced arrays; always a list."""
    out = primitive.bind(*values, **primitive.get_bind_params(params))
    return list(out) if primitive.multiple_results else [out]


def exported(name: str) -> Primitive | None:
    """JAX's primitive of a name: one that it exports, or that a program of ``_UNEXPORTED`` has."""
    return _primitives().get(name)


def is_jaxs(primitive: Primitive) -> bool:
    """Whether a primitive is JAX's, as far as :func:`exported` knows them."""
    return exported(primitive.name) is primitive


@cache
def _primitives() -> dict[str, Primitive]:
    two = jax.ShapeDtypeStruct((2,), jnp.float32)
    made = (jax.make_jaxpr(f)(two).jaxpr.eqns for f in _UNEXPORTED)
    outside = {e.primitive.name: e.primitive for eqns in made for e in eqns}
    own = {v.name: v for v in vars(primitives).values() if isinstance(v, Primitive)}
    return outside | own


def as_data(value: Any) -> Any:
    """Data as an array of JAX: no tracer where they are known, as NumPyro has them of a model.

    (NumPyro would compare an array of NumPy with traced bounds of a support in NumPy.)
    """
    if isinstance(value, Tracer):
        return value
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value)


def is_traced(tree: Any) -> bool:
    """Whether JAX traces any of a tree's leaves, so that its value is not known."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))


def is_traced_around() -> bool:
    """Whether this runs inside of a trace (``jit``, ``vmap``, ``grad``).

    Elsewhere every tracer is of a trace that is over, and nothing can be made of it.
    """
    return not trace_state_clean()


__all__ = [
    "COMPARISONS",
    "ELEMENTWISE",
    "INLINED",
    "IN_SOME_VERSIONS",
    "REDUCTIONS",
    "WITH_DERIVATIVE",
    "ClosedJaxpr",
    "Jaxpr",
    "Literal",
    "Op",
    "Param",
    "Primitive",
    "as_data",
    "bind",
    "body_of",
    "exported",
    "frames_of",
    "is_traced",
    "is_traced_around",
    "jaxpr_as_fun",
    "live",
    "own_backward",
    "reads",
]
