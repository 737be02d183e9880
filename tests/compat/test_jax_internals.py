"""Canaries: what autmarg reads of JAX beyond its documented interface.

Each test holds one thing that another version may rename or move: primitives and their parameters,
jaxprs, options. A failure names the versions; what depends on the thing is then to be adapted, and
the bounds in pyproject.toml with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse
from jax.lax import GatherScatterMode

from autmarg.compat.jaxprs import (
    IN_SOME_VERSIONS,
    ClosedJaxpr,
    Literal,
    Op,
    Param,
    bind,
    exported,
    frames_of,
    is_traced_around,
    own_backward,
    reads,
)
from tests.support.versions import VERSIONS

V, M, I = jnp.ones(3), jnp.ones((3, 3)), jnp.arange(3)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, also of the programs that an equation's parameters hold."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def softplus() -> Callable[..., Any]:
    """A function with a derivative of its own, reverse mode."""
    function = jax.custom_vjp(lambda x: jnp.log1p(jnp.exp(x)))
    function.defvjp(lambda x: (function(x), x), lambda x, g: (g * jax.nn.sigmoid(x),))
    return function


ONE_OPERAND = """
    abs acos asin atan bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf erfc erf_inv exp exp2
    expm1 floor is_finite lgamma log log1p logistic neg round rsqrt sign sin sinh sqrt square tan
    tanh
"""
TWO_OPERANDS = """
    add atan2 div eq ge gt igamma igammac le lt max min mul ne nextafter polygamma
    rem sub zeta
"""
SPARSE = sparse.BCOO.fromdense(np.eye(3))

# A primitive → a function that NumPyro programs call, and its arguments.
EXAMPLES: dict[Op, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    Op.RESHAPE: (lambda x: x.reshape(9), (M,)),
    Op.SQUEEZE: (lambda x: x[:1].squeeze(0), (V,)),
    Op.TRANSPOSE: (lambda x: x.T, (M,)),
    Op.BROADCAST_IN_DIM: (lambda x: x[None] * M, (V,)),
    Op.SLICE: (lambda x: x[1:], (V,)),
    Op.REV: (lambda x: lax.rev(x, (0,)), (V,)),
    Op.SPLIT: (lambda x: jnp.split(x, [1]), (V,)),
    Op.CONCATENATE: (lambda x: jnp.concatenate([x, x]), (V,)),
    Op.PAD: (lambda x: jnp.pad(x, 1), (V,)),
    Op.GATHER: (lambda x: x[I], (V,)),
    Op.DYNAMIC_SLICE: (lambda x, k: lax.dynamic_slice(x, (k,), (1,)), (V, 0)),
    Op.DYNAMIC_UPDATE_SLICE: (lambda x, k: lax.dynamic_update_slice(x, x[:1], (k,)), (V, 0)),
    Op.SELECT_N: (lambda x: jnp.where(I > 0, x, 0.0), (V,)),
    Op.SCATTER: (lambda x: x.at[I].set(x), (V,)),
    Op.SCATTER_ADD: (lambda x: x.at[I].add(x), (V,)),
    Op.SCATTER_SUB: (lambda x: x.at[I].subtract(x), (V,)),
    Op.SCATTER_MUL: (lambda x: x.at[I].multiply(x), (V,)),
    Op.ADD_ANY: (jax.grad(lambda x: (x**2).sum() + jnp.exp(x).sum()), (V,)),
    Op.INTEGER_POW: (lambda x: lax.integer_pow(x, 3), (V,)),
    Op.CONVERT_ELEMENT_TYPE: (lambda x: x.astype(jnp.float32), (V,)),
    Op.COPY: (jnp.copy, (V,)),
    Op.AND: (lambda x: (x > 0) & (x < 1), (V,)),
    Op.OR: (lambda x: (x > 0) | (x < 1), (V,)),
    Op.XOR: (lambda x: (x > 0) ^ (x < 1), (V,)),
    Op.NOT: (lambda x: ~(x > 0), (V,)),
    Op.TILE: (lambda x: jnp.tile(x, 2), (V,)),
    Op.OPTIMIZATION_BARRIER: (lax.optimization_barrier, (V,)),
    Op.REAL: (lambda x: jnp.real(x + 0j), (V,)),
    Op.IMAG: (lambda x: jnp.imag(x * 1j), (V,)),
    Op.CONJ: (lambda x: jnp.conj(x + 0j), (V,)),
    Op.COMPLEX: (lambda x: lax.complex(x, x), (V,)),
    Op.REDUCE_SUM: (lambda x: x.sum(0), (M,)),
    Op.CUMSUM: (jnp.cumsum, (V,)),
    Op.DOT_GENERAL: (lambda x: M @ x, (V,)),
    Op.TRIANGULAR_SOLVE: (
        lambda x: jax.scipy.linalg.solve_triangular(M, x, lower=True), (V,),
    ),
    Op.CUSTOM_LINEAR_SOLVE: (lambda x: jnp.linalg.solve(M, x), (V,)),
    Op.FFT: (jnp.fft.fft, (V,)),
    Op.REDUCE_WINDOW_SUM: (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "SAME"), (V,),
    ),
    Op.CONV_GENERAL_DILATED: (lambda x: jnp.convolve(x, V), (V,)),
    Op.BCOO_DOT_GENERAL: (lambda x: SPARSE @ x, (V,)),
    Op.CUSTOM_JVP_CALL: (jax.nn.relu, (V,)),
    Op.CUSTOM_VJP_CALL: (softplus(), (V,)),
    Op.REMAT2: (jax.checkpoint(jnp.sin), (V,)),
    Op.COND: (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), (V,)),
    Op.SCAN: (
        lambda x: lax.scan(lambda c, y: (c + y, c), 0.0, x), (V,),
    ),
    Op.WHILE: (
        lambda x: lax.while_loop(lambda c: c < 3, lambda c: c + 1, x[0]), (V,),
    ),
    Op.JIT: (jax.jit(jnp.sin), (V,)),
    Op.SORT: (jnp.sort, (V,)),
    Op.TOP_K: (lambda x: lax.top_k(x, 1), (V,)),
    Op.ARGMAX: (jnp.argmax, (V,)),
    Op.ARGMIN: (jnp.argmin, (V,)),
    Op.STOP_GRADIENT: (lax.stop_gradient, (V,)),
    Op.CHOLESKY: (jnp.linalg.cholesky, (M,)),
    Op.REGULARIZED_INCOMPLETE_BETA: (lambda x: lax.betainc(x, x, x), (V,)),
    Op.IOTA: (lambda: lax.iota(float, 3), ()),
    Op.CUMPROD: (jnp.cumprod, (V,)),
    Op.CUMMAX: (lax.cummax, (V,)),
    Op.CUMLOGSUMEXP: (lax.cumlogsumexp, (V,)),
    Op.REDUCE: (lambda x: lax.reduce(x, 0.0, lambda a, b: a + 2.0 * b, (0,)), (V,)),
    Op.REDUCE_AND: (lambda x: (x > 0).all(), (V,)),
    Op.REDUCE_OR: (lambda x: (x > 0).any(), (V,)),
    Op.REDUCE_XOR: (lambda i: lax.reduce_xor(i, (0,)), (I,)),
    Op.REDUCE_MAX: (jnp.max, (V,)),
    Op.REDUCE_MIN: (jnp.min, (V,)),
    Op.REDUCE_PROD: (jnp.prod, (V,)),
    Op.REDUCE_WINDOW: (
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + 2.0 * b, (2,), (1,), "SAME"), (V,),
    ),
    Op.REDUCE_WINDOW_MAX: (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "SAME"), (V,),
    ),
    Op.REDUCE_WINDOW_MIN: (
        lambda x: lax.reduce_window(x, jnp.inf, lax.min, (2,), (1,), "SAME"), (V,),
    ),
    Op.EIG: (jnp.linalg.eig, (M,)),
    Op.EIGH: (jnp.linalg.eigh, (M,)),
    Op.HOUSEHOLDER_PRODUCT: (lax.linalg.householder_product, (M, V)),
    Op.LU: (lax.linalg.lu, (M,)),
    Op.QR: (lax.linalg.qr, (M,)),
    Op.SCHUR: (lax.linalg.schur, (M,)),
    Op.SVD: (lax.linalg.svd, (M,)),
    Op.CLAMP: (lambda x: lax.clamp(0.0, x, 1.0), (V,)),
    Op.POW: (lambda x: x**x, (V,)),
    **{Op(name): (getattr(lax, name), (V,)) for name in ONE_OPERAND.split()},
    **{Op(name): (getattr(lax, name), (V, V)) for name in TWO_OPERANDS.split()},
}  # fmt: skip


@pytest.mark.parametrize("op", EXAMPLES)
def test_a_primitive_and_its_parameters(op):
    function, arguments = EXAMPLES[op]
    closed = jax.make_jaxpr(function)(*arguments)
    found = {Op.of(e.primitive): e for e in equations(closed.jaxpr)}
    assert op in found, f"expected a primitive '{op}', found {sorted(found)} {VERSIONS}"
    missing = set(op.parameters) - set(found[op].params)
    assert not missing, f"'{op}' has no {missing}, only {set(found[op].params)} {VERSIONS}"


def test_every_row_of_the_table_has_an_example():
    assert set(Op) == {*EXAMPLES, *IN_SOME_VERSIONS, Op.OTHER}


def test_modes_and_dimensions_of_a_gather():
    (gather,) = (
        e
        for e in equations(jax.make_jaxpr(lambda x: x[I])(V).jaxpr)
        if Op.of(e.primitive) is Op.GATHER
    )
    assert tuple(gather.params[Param.DIMENSION_NUMBERS].start_index_map) == (0,), VERSIONS
    assert gather.params[Param.MODE] in set(GatherScatterMode), VERSIONS
    assert {"CLIP", "FILL_OR_DROP"} <= {mode.name for mode in GatherScatterMode}, VERSIONS


def test_a_jaxpr():
    """Variables with shapes, literals with values, lines of the user."""
    closed = jax.make_jaxpr(lambda x: lax.top_k(x + 1.0, 1)[0])(V)
    add, _ = closed.jaxpr.eqns
    assert isinstance(closed, ClosedJaxpr) and len(closed.consts) == 0, VERSIONS
    literals = [v.val for v in add.invars if isinstance(v, Literal)]
    assert literals == [1.0] and add.outvars[0].aval.shape == (3,), VERSIONS
    assert __file__ in [frame.file_name for frame in frames_of(add)], VERSIONS
    assert {"line_num", "function_name"} <= set(dir(frames_of(add)[0])), VERSIONS
    (again,) = bind(add.primitive, add.params, V, 1.0)
    np.testing.assert_array_equal(again, V + 1)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.make_jaxpr])
def test_whether_a_trace_is_around(transform):
    found = []
    transform(lambda x: (found.append(is_traced_around()), x)[1])(1.0)
    assert found == [True] and not is_traced_around()


def test_what_nothing_reads():
    assert reads(lambda x, y: (x + y.sum(), x), V, M) == (True, True), VERSIONS
    assert reads(lambda x, y: x, V, M) == (True, False), VERSIONS


def test_a_derivative_of_its_own():
    (call,) = jax.make_jaxpr(softplus())(V).jaxpr.eqns
    backward = own_backward(call.params)
    assert backward is not None, VERSIONS
    np.testing.assert_allclose(backward(V, V)[0], jax.nn.sigmoid(V), err_msg=VERSIONS)


def test_exported_primitives():
    add = exported(Op.ADD)
    assert add is not None and Op.of(add) is Op.ADD, VERSIONS
    assert exported("no primitive") is None, VERSIONS


def test_options_of_jax():
    for name in ("jax_enable_x64", "jax_disable_most_optimizations"):
        assert isinstance(jax.config.read(name), bool), VERSIONS
