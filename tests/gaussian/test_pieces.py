"""Reading places of vectors in pieces: the same numbers, and the same derivatives, as indexing."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from autmarg.gaussian.pieces import gather, gather_pieces


def expected(x, index):
    return np.where(index >= 0, x[index], 0)


@st.composite
def reads(draw):
    """Sizes of pieces, and places: any, few, in order, or in order with exchanged axes."""
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    total, count = sum(sizes), int(np.prod(shape))
    kind = draw(st.sampled_from(["any", "few", "run"]))
    if kind == "run" and count <= total:
        start = draw(st.integers(0, total - count))
        axes = draw(st.permutations(range(len(shape))))
        return sizes, (start + np.arange(count)).reshape(shape).transpose(axes)
    low = -1 if kind == "any" else -8 * total
    places = draw(st.lists(st.integers(low, total - 1), min_size=count, max_size=count))
    return sizes, np.maximum(np.array(places), -1).reshape(shape)


@settings(max_examples=25, deadline=None)  # each example compiles
@given(reads())
def test_pieces_are_read_as_one_vector(read):
    sizes, index = read
    x = np.arange(1.0, sum(sizes) + 1)
    weight = jnp.asarray(np.random.default_rng(0).normal(size=index.shape))

    def pieces_of(x):
        return jnp.split(x, np.cumsum(sizes)[:-1])

    np.testing.assert_array_equal(gather(jnp.asarray(x), index), expected(x, index))
    np.testing.assert_array_equal(
        gather_pieces(pieces_of(jnp.asarray(x)), index), expected(x, index)
    )
    slope = jax.grad(lambda x: jnp.vdot(weight, gather_pieces(pieces_of(x), index)))(jnp.asarray(x))
    used = index >= 0
    by_hand = np.bincount(index[used], weights=np.asarray(weight)[used], minlength=len(x))
    np.testing.assert_allclose(slope, by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "index",
    [
        np.arange(24).reshape(2, 3, 4) + 5,
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2).reshape(1, 6, 4),
    ],
    ids=["run", "exchanged", "halves of an axis exchanged"],
)
def test_runs_are_not_gathered(index):
    x = jnp.arange(40.0)
    assert "gather" not in str(jax.make_jaxpr(lambda x: gather(x, index))(x))
    np.testing.assert_array_equal(gather(x, index), expected(np.arange(40.0), index))


def test_alternating_pieces_are_read_in_few_operations():
    pieces = [jnp.arange(100.0), jnp.arange(100.0, 200.0)]
    index = np.stack([np.arange(100), np.arange(100, 200)], axis=1).reshape(-1)
    equations = jax.make_jaxpr(lambda *p: gather_pieces(p, index))(*pieces).jaxpr.eqns
    assert len(equations) < 20
    np.testing.assert_array_equal(gather_pieces(pieces, index), index)
