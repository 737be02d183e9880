"""Canaries: what autmarg reads of JAX and NumPyro beyond their documented interfaces.

Each test holds one thing that another version may rename or move: primitives and their parameters,
messages of handlers, attributes of NUTS. A failure names the versions; what depends on the thing is
then to be adapted, and the bounds in pyproject.toml with it.
"""

from __future__ import annotations

import inspect
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
from jax.extend.core import ClosedJaxpr, Literal
from jax.interpreters.partial_eval import dce_jaxpr
from jax.lax import GatherScatterMode
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.distributions.distribution import Unit
from numpyro.infer import NUTS, initialization
from numpyro.primitives import _PYRO_STACK, Messenger

from autmarg.analysis.interpret import ELEMENTWISE
from autmarg.analysis.nonlinear import _COMPARISONS, _ORDERINGS, _ROUNDING
from autmarg.analysis.rules import CALLS, RULES
from autmarg.ir.tape import INLINED
from autmarg.rules.monomial import _FUNCTIONS

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
    abs cbrt ceil cos cosh digamma erf erfc exp exp2 expm1 floor is_finite lgamma log log1p logistic
    neg round rsqrt sign sin sinh sqrt square tan tanh
"""
TWO_OPERANDS = "add div eq ge gt le lt max min mul ne nextafter rem sub"
SPARSE = sparse.BCOO.fromdense(np.eye(3))

# A primitive → a function that NumPyro programs call, its arguments, and the parameters we read.
PRIMITIVES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "reshape": (lambda x: x.reshape(9), (M,), ""),
    "squeeze": (lambda x: x[:1].squeeze(0), (V,), "dimensions"),
    "transpose": (lambda x: x.T, (M,), "permutation"),
    "broadcast_in_dim": (lambda x: x[None] * M, (V,), "shape broadcast_dimensions"),
    "slice": (lambda x: x[1:], (V,), "start_indices limit_indices strides"),
    "rev": (lambda x: lax.rev(x, (0,)), (V,), ""),
    "split": (lambda x: jnp.split(x, [1]), (V,), ""),
    "concatenate": (lambda x: jnp.concatenate([x, x]), (V,), "dimension"),
    "pad": (lambda x: jnp.pad(x, 1), (V,), ""),
    "gather": (lambda x: x[I], (V,), "dimension_numbers slice_sizes mode fill_value"),
    "dynamic_slice": (lambda x, k: lax.dynamic_slice(x, (k,), (1,)), (V, 0), ""),
    "dynamic_update_slice": (lambda x, k: lax.dynamic_update_slice(x, x[:1], (k,)), (V, 0), ""),
    "select_n": (lambda x: jnp.where(I > 0, x, 0.0), (V,), ""),
    "scatter": (lambda x: x.at[I].set(x), (V,), ""),
    "scatter-add": (lambda x: x.at[I].add(x), (V,), ""),
    "scatter-sub": (lambda x: x.at[I].subtract(x), (V,), ""),
    "scatter-mul": (lambda x: x.at[I].multiply(x), (V,), ""),
    "add_any": (jax.grad(lambda x: (x**2).sum() + jnp.exp(x).sum()), (V,), ""),
    "integer_pow": (lambda x: lax.integer_pow(x, 3), (V,), "y"),
    "convert_element_type": (lambda x: x.astype(jnp.float32), (V,), "new_dtype"),
    "copy": (jnp.copy, (V,), ""),
    "tile": (lambda x: jnp.tile(x, 2), (V,), ""),
    "optimization_barrier": (lax.optimization_barrier, (V,), ""),
    "real": (lambda x: jnp.real(x + 0j), (V,), ""),
    "imag": (lambda x: jnp.imag(x * 1j), (V,), ""),
    "conj": (lambda x: jnp.conj(x + 0j), (V,), ""),
    "complex": (lambda x: lax.complex(x, x), (V,), ""),
    "reduce_sum": (lambda x: x.sum(0), (M,), "axes"),
    "cumsum": (jnp.cumsum, (V,), "axis reverse"),
    "dot_general": (lambda x: M @ x, (V,), "dimension_numbers"),
    "triangular_solve": (
        lambda x: jax.scipy.linalg.solve_triangular(M, x, lower=True), (V,), "left_side",
    ),
    "custom_linear_solve": (lambda x: jnp.linalg.solve(M, x), (V,), "const_lengths"),
    "fft": (jnp.fft.fft, (V,), ""),
    "reduce_window_sum": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "SAME"), (V,), "",
    ),
    "conv_general_dilated": (lambda x: jnp.convolve(x, V), (V,), ""),
    "bcoo_dot_general": (lambda x: SPARSE @ x, (V,), ""),
    "custom_jvp_call": (jax.nn.relu, (V,), "call_jaxpr"),
    "custom_vjp_call": (softplus(), (V,), "call_jaxpr"),
    "remat2": (jax.checkpoint(jnp.sin), (V,), "jaxpr"),
    "cond": (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), (V,), "branches"),
    "scan": (
        lambda x: lax.scan(lambda c, y: (c + y, c), 0.0, x), (V,),
        "length reverse num_consts num_carry jaxpr",
    ),
    "while": (
        lambda x: lax.while_loop(lambda c: c < 3, lambda c: c + 1, x[0]), (V,),
        "cond_jaxpr body_jaxpr cond_nconsts body_nconsts",
    ),
    "jit": (jax.jit(jnp.sin), (V,), "jaxpr"),
    "sort": (jnp.sort, (V,), ""),
    "top_k": (lambda x: lax.top_k(x, 1), (V,), ""),
    "argmax": (jnp.argmax, (V,), ""),
    "argmin": (jnp.argmin, (V,), ""),
    "stop_gradient": (lax.stop_gradient, (V,), ""),
    "cholesky": (jnp.linalg.cholesky, (M,), ""),
    "clamp": (lambda x: lax.clamp(0.0, x, 1.0), (V,), ""),
    "pow": (lambda x: x**x, (V,), ""),
    **{name: (getattr(lax, name), (V,), "") for name in ONE_OPERAND.split()},
    **{name: (getattr(lax, name), (V, V), "") for name in TWO_OPERANDS.split()},
}  # fmt: skip
# Names that these primitives have, or had, in other versions.
ELSEWHERE = {"stack", "copy_p", "expand_dims", "checkpoint", "pjit", "core_call", "closed_call"}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_and_its_parameters(name):
    function, arguments, parameters = PRIMITIVES[name]
    closed = jax.make_jaxpr(function)(*arguments)
    found = {e.primitive.name: e for e in equations(closed.jaxpr)}
    assert name in found, f"expected a primitive '{name}', found {sorted(found)} {VERSIONS}"
    missing = set(parameters.split()) - set(found[name].params)
    assert not missing, f"'{name}' has no {missing}, only {set(found[name].params)} {VERSIONS}"


def test_every_primitive_with_a_rule_is_held_here():
    ruled = {name for rule in (*RULES, *CALLS) for name in rule.primitives}
    named = {*ELEMENTWISE, *INLINED, *_ROUNDING, *_COMPARISONS, *_ORDERINGS, *_FUNCTIONS}
    assert ruled | named <= {*PRIMITIVES, *ELSEWHERE}, VERSIONS


def test_modes_and_dimensions_of_a_gather():
    (gather,) = (
        e
        for e in equations(jax.make_jaxpr(lambda x: x[I])(V).jaxpr)
        if e.primitive.name == "gather"
    )
    assert tuple(gather.params["dimension_numbers"].start_index_map) == (0,), VERSIONS
    assert gather.params["mode"] in set(GatherScatterMode), VERSIONS
    assert {"CLIP", "FILL_OR_DROP"} <= {mode.name for mode in GatherScatterMode}, VERSIONS


def test_a_jaxpr():
    """Variables with shapes, literals with values, lines of the user."""
    closed = jax.make_jaxpr(lambda x: lax.top_k(x + 1.0, 1)[0])(V)
    add, _ = closed.jaxpr.eqns
    assert isinstance(closed, ClosedJaxpr) and len(closed.consts) == 0, VERSIONS
    literals = [v.val for v in add.invars if isinstance(v, Literal)]
    assert literals == [1.0] and add.outvars[0].aval.shape == (3,), VERSIONS
    frames = [frame.file_name for frame in add.source_info.traceback.frames]
    assert __file__ in frames, VERSIONS
    assert {"line_num", "function_name"} <= set(dir(add.source_info.traceback.frames[0])), VERSIONS
    again = add.primitive.bind(V, 1.0, **add.primitive.get_bind_params(add.params))
    np.testing.assert_array_equal(again, V + 1)
    live, used = dce_jaxpr(closed.jaxpr, [False])[:2]
    assert not live.eqns and used == [False], VERSIONS


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
        self.stack = list(_PYRO_STACK)
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
    assert isinstance(after["f"]["fn"], Unit) and after["f"]["is_observed"], VERSIONS
    assert after["d"]["type"] == "deterministic", VERSIONS
    assert after["groups"]["type"] == "plate" and after["groups"]["args"] == (3, None), VERSIONS


def test_messages_of_params_and_keys():
    found = messages_of(two_plates)
    start = found.after["start"]
    assert start["type"] == "param" and not start["args"], VERSIONS
    initial = inspect.signature(start["fn"]).parameters["init_value"].default
    assert callable(initial), VERSIONS
    keys = [m for m in found.before if m["type"] == "prng_key"]
    assert keys[-1]["kwargs"]["rng_key"] is None and keys[-1]["value"] is None, VERSIONS
    assert found in found.stack, VERSIONS


def test_messages_of_a_scan():
    def model():
        def step(carry, x):
            return numpyro.sample("z", dist.Normal(carry, 1.0)), None

        scan(step, 0.0, V, reverse=True)

    found = messages_of(model)
    (control,) = (m for m in found.before if m["type"] == "control_flow")
    assert control["fn"] is scan_wrapper, VERSIONS
    assert list(inspect.signature(scan_wrapper).parameters)[4] == "reverse", VERSIONS
    assert control["args"][4] is True, VERSIONS
    assert "_control_flow_done" in found.after["z"], VERSIONS
    assert "_scan_current_index" in found.after["z"]["infer"], VERSIONS


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


def test_attributes_of_nuts():
    """A state that NumPyro's own kernel finds, and what autmarg's takes from it."""

    def model():
        numpyro.sample("s", dist.HalfNormal(1.0))

    kernel = NUTS(model)
    parameters = list(inspect.signature(NUTS._init_state).parameters)
    assert parameters == ["self", "rng_key", "model_args", "model_kwargs", "init_params"], VERSIONS
    assert kernel._init_fn is None and kernel._dense_mass is False, VERSIONS
    state = kernel.init(jax.random.key(0), 1, None, (), {})
    assert callable(kernel._init_fn) and set(state.z) == {"s"}, VERSIONS
    assert set(kernel._inv_transforms) == {"s"}, VERSIONS
    assert {"z", "potential_energy", "adapt_state"} <= set(state._fields), VERSIONS


def test_initial_values_come_from_one_module():
    for strategy in (numpyro.infer.init_to_uniform, numpyro.infer.init_to_median):
        assert strategy.__module__ == initialization.__name__, VERSIONS


def test_distributions_are_pytrees_of_their_parameters():
    leaves, structure = jax.tree.flatten(dist.Normal(V, 2.0))
    assert len(leaves) == 2 and structure.node_data()[0] is dist.Normal, VERSIONS
    normal = dist.Normal(V, 1.0)
    for wrapped in (normal.expand([2, 3]), normal.to_event(1), normal.mask(V > 0)):
        assert isinstance(wrapped.base_dist, dist.Normal), VERSIONS
    assert normal.to_event(1).reinterpreted_batch_ndims == 1, VERSIONS
    assert dist.Categorical(V / 3).has_enumerate_support, VERSIONS
