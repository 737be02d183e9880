"""Canaries: what autmarg reads of JAX and NumPyro beyond their documented interfaces.

Each test holds one thing that another version may rename or move: primitives and their parameters,
messages of handlers, attributes of NUTS. A failure names the versions; what depends on the thing is
then to be adapted, and the bounds in pyproject.toml with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from jax.experimental import sparse
from jax.lax import GatherScatterMode
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.primitives import Messenger

from autmarg.compat import numpyro as compat
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
from autmarg.compat.pytrees import node_of, one_level, tree_of

VERSIONS = f"in jax {jax.__version__}, numpyro {numpyro.__version__}"
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


# NumPyro


def two_plates(y=None):
    start = numpyro.param("start", lambda key: jax.random.normal(key))
    with numpyro.plate("groups", 3, dim=-2), numpyro.plate("rows", 4, dim=-1):
        u = numpyro.sample("u", dist.Normal(start, 1.0), infer={"note": 1})
    numpyro.deterministic("d", 2 * u)
    numpyro.factor("f", -(u**2).sum())
    with handlers.scale(scale=2.0), handlers.mask(mask=np.ones(4, bool)):
        numpyro.sample("y", dist.Normal(u, 1.0), obs=y, sample_shape=())
    numpyro.prng_key()


class Messages(Messenger):
    """Keeps every message, in both directions."""

    def __init__(self, fn: Any = None) -> None:
        super().__init__(fn)
        self.before: list[dict[str, Any]] = []
        self.after: dict[str, dict[str, Any]] = {}
        self.stack: list[Any] = []

    def process_message(self, msg: dict[str, Any]) -> None:
        self.stack = list(compat.around())
        self.before.append({**msg, "kwargs": dict(msg.get("kwargs") or {})})

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        self.after[str(msg.get("name"))] = dict(msg)


def messages_of(model: Callable[..., Any], *args: Any) -> Messages:
    found = Messages()
    with handlers.seed(rng_seed=0), found:
        model(*args)
    return found


def test_messages_of_sites():
    found = messages_of(two_plates, jnp.ones((3, 4)))
    after = found.after
    for name in ("u", "y", "f"):
        keys = {"type", "name", "fn", "args", "kwargs", "value", "scale", "is_observed", "infer"}
        assert keys | {"cond_indep_stack", "intermediates"} <= set(after[name]), VERSIONS
    assert [(f.name, f.size, f.dim) for f in after["u"]["cond_indep_stack"]] == [
        ("rows", 4, -1), ("groups", 3, -2),
    ], VERSIONS  # fmt: skip
    assert after["u"]["infer"]["note"] == 1, VERSIONS
    assert (after["y"]["scale"], after["y"]["is_observed"]) == (2.0, True), VERSIONS
    assert {"rng_key", "sample_shape"} <= set(after["u"]["kwargs"]), VERSIONS
    assert isinstance(after["y"]["fn"], dist.MaskedDistribution), VERSIONS
    assert isinstance(after["f"]["fn"], dist.Unit) and after["f"]["is_observed"], VERSIONS
    assert after["d"]["type"] == "deterministic", VERSIONS
    assert after["groups"]["type"] == "plate" and after["groups"]["args"] == (3, None), VERSIONS


def test_messages_of_params_and_keys():
    found = messages_of(two_plates)
    start = found.after["start"]
    assert start["type"] == "param" and not start["args"], VERSIONS
    assert callable(compat.initialiser_of(start)), VERSIONS
    keys = [m for m in found.before if m["type"] == "prng_key"]
    assert keys[-1]["kwargs"]["rng_key"] is None and keys[-1]["value"] is None, VERSIONS
    assert found in found.stack, VERSIONS


@pytest.mark.parametrize("reverse", [True, False])
def test_messages_of_a_scan(reverse):
    def model():
        def step(carry, x):
            return numpyro.sample("z", dist.Normal(carry, 1.0)), None

        scan(step, 0.0, V, reverse=reverse)

    found = messages_of(model)
    (control,) = (m for m in found.before if m["type"] == "control_flow")
    assert compat.is_scan(control) and compat.is_reversed(control) is reverse, VERSIONS
    site = found.after["z"]
    assert compat.is_scanned(site) and compat.infer_of(site) == {}, VERSIONS
    assert site["infer"], VERSIONS
    steps: list[Any] = []
    give = handlers.substitute(substitute_fn=lambda msg: steps.append(compat.step_of(msg)))
    with handlers.seed(rng_seed=0), give:
        model()
    assert any(step is not None for step in steps), VERSIONS
    outside = messages_of(two_plates).after["u"]
    assert not compat.is_scanned(outside) and compat.step_of(outside) is None, VERSIONS


@pytest.mark.parametrize(
    ("handler", "attributes"),
    [
        (handlers.replay(trace={}), "trace"),
        (handlers.substitute(data={"u": 1.0}), "data substitute_fn"),
        (handlers.condition(data={"u": 1.0}), "data condition_fn"),
        (handlers.do(data={"u": 1.0}), "data"),
        (handlers.block(hide=["u"]), "hide_fn"),
        (handlers.scope(prefix="a"), "prefix divider hide_types"),
        (handlers.scale(scale=2.0), "scale"),
        (handlers.reparam(config={}), "config"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Messenger) else "",
)
def test_attributes_of_a_handler(handler, attributes):
    missing = [name for name in attributes.split() if not hasattr(handler, name)]
    assert not missing, f"{type(handler).__name__} has no {missing} {VERSIONS}"


def test_nuts_searches_for_a_point():
    """Arguments and state of NumPyro's kernel, as a kernel of our own sees them."""

    class Own(compat.Kernel):
        def initial_point(self, search, rng_key, model_args, model_kwargs, given):
            assert self.start is None and given is None, VERSIONS
            assert (model_args, model_kwargs) == ((2.0,), {}), VERSIONS
            found = search(rng_key)
            assert compat.sampled_sites(found) == {"s"}, VERSIONS
            self.join([("s",)])
            return found

    def model(scale):
        numpyro.sample("s", dist.HalfNormal(scale))

    kernel = Own(model)
    state = kernel.init(jax.random.key(0), 1, None, (2.0,), {})
    assert callable(kernel.start) and set(state.z) == {"s"}, VERSIONS
    assert set(kernel.inverse_transforms) == {"s"}, VERSIONS
    assert {*state.adapt_state.inverse_mass_matrix} == {("s",)}, VERSIONS


def test_values_of_an_initialisation_are_known_from_others():
    for strategy in (numpyro.infer.init_to_uniform(radius=1), numpyro.infer.init_to_median):
        assert compat.initialises(handlers.substitute(substitute_fn=strategy)), VERSIONS
    assert not compat.initialises(handlers.substitute(substitute_fn=lambda site: None)), VERSIONS


def test_distributions_are_pytrees_of_their_parameters():
    leaves, structure = jax.tree.flatten(dist.Normal(V, 2.0))
    node = node_of(structure)
    assert len(leaves) == 2 and node is not None and node.kind is dist.Normal, VERSIONS
    assert tree_of(node, structure.children(), len(leaves)) == structure, VERSIONS
    assert one_level(dist.Normal(V, 2.0)) == (leaves, node.static), VERSIONS
    assert {*compat.array_fields(dist.Normal)} == {"loc", "scale"}, VERSIONS
    assert len(compat.static_fields(dist.Normal)) == len(node.static), VERSIONS


def test_what_is_around_a_distribution():
    normal = dist.Normal(V, 1.0)
    wrapped = normal.mask(V > 0).expand([2, 3]).to_event(1)
    found = compat.unwrapped(wrapped)
    assert found.base is normal and [axes for _, axes in found.masks] == [0], VERSIONS
    np.testing.assert_array_equal(found.masks[0][0], V > 0)
    assert compat.unwrapped(wrapped, masks_too=False).base.base_dist is normal, VERSIONS
    assert compat.unwrapped(normal.mask(True)).effective_masks == (), VERSIONS
    assert dist.Categorical(V / 3).has_enumerate_support, VERSIONS


def test_a_distribution_that_says_whether_it_validates():
    strict = dist.Normal(V, 1.0, validate_args=True)
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(compat.validating(strict))))
    assert compat.validates(strict) and compat.validates(again), VERSIONS


def test_arguments_under_a_private_name():
    parts = [dist.Normal(0.0, 1.0), dist.Normal(1.0, 2.0)]
    mixture = dist.MixtureGeneral(dist.Categorical(V[:2] / 2), parts)
    assert "mixing_distribution" in compat.attributes_of(mixture), VERSIONS
