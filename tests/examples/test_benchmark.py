"""The benchmark runs, and its hand-written opponents are the models they claim to be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

import autmarg
from examples.benchmarks import accelerator
from examples.benchmarks.__main__ import parser
from examples.benchmarks.agreement import BOUND
from examples.benchmarks.measure import min_ess, read
from examples.benchmarks.methods import method, subsets
from examples.benchmarks.opponents import dense, single_class
from examples.benchmarks.precision import precision
from examples.benchmarks.run import run
from examples.benchmarks.sets import load_set

SMALL = "crossed:levels=6x4,rows=40,slopes=1"
TINY = "crossed:levels=4,rows=40"


def test_opponents_have_the_density_of_the_transformed_model(quick_compilation):
    data = load_set(SMALL)
    point = {
        "beta": jnp.array([0.3, -0.2]),
        "sigma": jnp.array(0.7),
        "tau_u0": jnp.array([0.5, 1.1]),
        "L_u0": jnp.array([[1.0, 0.0], [0.6, 0.8]]),
        "tau_u1": jnp.array(0.4),
    }
    one = autmarg.transform(data.source, marginalize=["u0"], reparameterize="off")
    both = autmarg.transform(data.source, marginalize=["u0", "u1"])
    with_u1 = {**point, "u1": jnp.linspace(-1, 1, 4)}
    first = next(f for f in data.factors if f.effects == ("u0",))
    by_hand = single_class(data.source, first, "y")
    assert value(by_hand, data, with_u1) == pytest.approx(value(one, data, with_u1), rel=1e-12)
    by_hand = dense(data.source, data.factors, "y")
    assert value(by_hand, data, point) == pytest.approx(value(both, data, point), rel=1e-12)


def value(model, data, point):
    return float(jax.jit(lambda p: log_density(model, data.args, {}, p)[0])(point))


@pytest.mark.slow
def test_gradients_of_a_small_set(quick_compilation, tmp_path, capsys):
    words = f"gradients --sets {SMALL} --methods source all --rounds 2 --seconds 0.001 --out"
    run(parser().parse_args([*words.split(), str(tmp_path)]), 1)
    rows = read(tmp_path / "gradients.csv")
    assert [row["method"] for row in rows] == ["source", "all"]
    assert [int(row["dims"]) for row in rows] == [2 + 1 + 3 + 12 + 1 + 4, 1 + 3 + 1]
    assert all(float(row["us"]) > 0 and int(row["hlo"]) > 0 for row in rows)
    assert SMALL in capsys.readouterr().out


def test_all_subsets_of_factors_and_fixed_effects():
    data = load_set(SMALL)
    names = subsets(data)
    assert len(set(names)) == 8 and names[0] == "integrate:"
    sampled = [method(data, name).marg.plan(*data.args).integrated for name in names]
    assert sampled[0] == () and set(sampled[-1]) == {"beta", "u0", "u1"}
    assert {frozenset(each) for each in sampled} >= {frozenset({"u0"}), frozenset({"beta", "u1"})}


@pytest.mark.slow
def test_gradients_of_several_chains(quick_compilation, tmp_path):
    words = f"chains --sets {TINY} --methods all --rounds 2 --seconds 0.001 --out"
    run(parser().parse_args([*words.split(), str(tmp_path)]), 1)
    rows = read(tmp_path / "chains.csv")
    assert [int(row["chains"]) for row in rows] == [1, 2, 4, 8]
    assert all(float(row["each"]) > 0 for row in rows)


@pytest.mark.slow
def test_an_accelerator_beside_the_processor(quick_compilation, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "CHAINS", (1, 2))
    monkeypatch.setattr(accelerator, "BLOCKS", (16, 32))
    run(parser().parse_args(["accelerator", "--sets", TINY, "--out", str(tmp_path)]), 1)
    rows = read(tmp_path / "accelerator.csv")
    found = [(row["method"], row["what"], int(row["points"])) for row in rows]
    gradients = [(name, "gradient", count) for name in ("source", "all") for count in (1, 2)]
    blocks = [("all", "proposals", count) for count in (16, 32)]
    assert found == gradients + blocks
    assert all(float(row["us_each"]) > 0 and int(row["scatters"]) >= 0 for row in rows)


def test_scattered_updates_are_counted():
    def text(function):
        return jax.jit(function).lower(jnp.arange(4.0)).as_text()

    at = np.array([3, 0, 1])
    assert accelerator.scatters(text(lambda x: jnp.zeros(9).at[at].add(x[:3]))) == 1
    assert accelerator.scatters(text(lambda x: 2 * x)) == 0


@pytest.mark.slow
def test_sampling_of_a_small_set_sees_the_integrated_latents(quick_compilation, tmp_path):
    words = f"sampling --sets {TINY} --methods all noncentred --seeds 1 --warmup 50 --draws 50"
    run(parser().parse_args([*words.split(), "--out", str(tmp_path)]), 1)
    first, second = read(tmp_path / "sampling.csv")
    assert (first["dims"], second["dims"]) == ("2", "7")
    assert all(
        float(row["leapfrogs"]) >= 1 and float(row["ess_per_s"]) > 0 for row in (first, second)
    )


@pytest.mark.slow
def test_the_posterior_of_sample_agrees_with_nuts(quick_compilation, tmp_path):
    words = f"agreement --sets {TINY} --warmup 300 --draws 500 --out {tmp_path}"
    run(parser().parse_args(words.split()), 1)
    (row,) = read(tmp_path / "agreement.csv")
    assert row["method"] == "independence" and row["comparisons"] == "4"
    assert max(float(row["mean"]), float(row["log_sd"])) < BOUND


@pytest.mark.slow
def test_single_precision_beside_double(quick_compilation):
    (row,) = precision(load_set(TINY), ["all"], 100, 100)
    assert 0 < row["gradient"] < 1e-5
    assert row["dims"] == 2 and row["worst"] < 4


def test_least_ess_is_over_all_elements():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=1000))
    draws = {"a": rng.normal(size=(1000, 3)), "b": np.stack([rng.normal(size=1000), walk], -1)}
    assert 500 < min_ess({"a": draws["a"]})[0] < 1500
    least, site = min_ess(draws)
    assert site == "b" and least < 50
    assert min_ess({"stuck": np.ones((1000, 2))}) == (1.0, "stuck")
