"""Canaries: what autmarg reads of NumPyro beyond its documented interface.

Each test holds one thing that another version may rename or move: messages of handlers, attributes
of NUTS, leaves of distributions. A failure names the versions; what depends on the thing is then to
be adapted, and the bounds in pyproject.toml with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.primitives import Messenger

from autmarg.compat import numpyro as compat
from autmarg.compat.pytrees import node_of, one_level, tree_of
from tests.support.versions import VERSIONS

V = jnp.ones(3)


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


def test_traced_arguments_are_not_checked():
    asked = []

    class Asked(type(dist.constraints.real)):
        def __call__(self, x):
            asked.append(x)
            return super().__call__(x)

    class Noted(dist.Normal):
        arg_constraints: ClassVar = {**dist.Normal.arg_constraints, "loc": Asked()}

    def said(scale):
        with pytest.raises(ValueError, match="invalid scale") as error:
            jax.eval_shape(lambda loc: dist.Normal(loc, scale).loc, 0.0)
        return str(error.value)

    def look():
        jax.eval_shape(lambda loc: Noted(loc, 1.0).loc, 0.0)

    usual = said(-1.0)
    look()
    assert asked, VERSIONS
    asked.clear()
    with compat.traced_arguments_unchecked():
        assert said(-1.0) == said(-V) == usual, VERSIONS
        jax.eval_shape(lambda loc: dist.Normal(loc, V).loc, V)
        look()
        assert not asked, VERSIONS
        Noted(0.0, 1.0)
        assert asked, VERSIONS
    asked.clear()
    look()
    assert asked, VERSIONS


def test_arguments_under_a_private_name():
    parts = [dist.Normal(0.0, 1.0), dist.Normal(1.0, 2.0)]
    mixture = dist.MixtureGeneral(dist.Categorical(V[:2] / 2), parts)
    assert "mixing_distribution" in compat.attributes_of(mixture), VERSIONS
