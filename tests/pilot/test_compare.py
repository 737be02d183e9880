"""A pilot of several programs: what it measures, on the same elements for all, and what it says."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.backend.nuts import MarginalNUTS
from autmarg.pilot.chain import Sampler
from autmarg.pilot.comparison import Comparison, Measured, Pilot

RNG = np.random.default_rng(17)
GROUP = np.repeat(np.arange(6), 5)
Y = RNG.normal(size=6)[GROUP] + 0.5 * RNG.normal(size=30)


def groups(group, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    tau, sigma = (numpyro.sample(n, dist.HalfNormal(1)) for n in ("tau", "sigma"))
    with numpyro.plate("groups", 6):
        u = numpyro.sample("u", dist.Normal(mu, tau))
    numpyro.sample("y", dist.Normal(u[group], sigma), obs=y)


def normal(y, scale):
    numpyro.sample("y", dist.Normal(0, scale), obs=y)


@pytest.fixture(scope="module")
def comparison():
    return autmarg.compare(
        groups, GROUP, kwargs={"y": Y}, num_warmup=60, num_samples=120, progress=False,
        programs=("source", "auto"),
    )  # fmt: skip


def test_programs_are_measured_on_all_latents_of_the_source(comparison):
    source, auto = comparison.pilots
    assert (source.program, source.integrated, source.noncentred) == ("source", (), ())
    assert auto.integrated == ("mu", "u")
    assert [p.measured.dimensions for p in comparison.pilots] == [9, 2]
    for pilot in comparison.pilots:
        m = pilot.measured
        assert (m.warmup, m.draws, m.cut) == (60, 120, "")
        assert m.leapfrogs >= m.draws and m.site in ("mu", "tau", "sigma", "u")
        assert 0 < m.ess <= 120 * np.log10(120)
        assert m.ess_per_1000_gradients == pytest.approx(1000 * m.ess / m.leapfrogs)
        assert m.ess_per_second == pytest.approx(m.ess / m.sampling_seconds)
        before = m.compile_seconds + m.warmup_seconds
        each = (m.sampling_seconds + m.recovery_seconds) / m.ess
        assert m.seconds_for_1000 == pytest.approx(before + 1000 * each)
    assert source.measured.recovery_seconds == 0 < auto.measured.recovery_seconds
    assert auto.measured.ess_per_draw > source.measured.ess_per_draw


def test_the_table_the_rows_and_the_figure(comparison):
    text = str(comparison)
    assert text.startswith("comparison of 'groups': ")
    assert "auto: integrates out mu, u" in text
    assert "numpyro.diagnostics" in text
    rows = comparison.rows()
    assert [row["program"] for row in rows] == ["source", "auto"]
    assert rows[0]["predicted_gradient_s"] > 0
    assert "<td" in comparison._repr_html_()
    pytest.importorskip("matplotlib")
    axes = comparison.figure().axes
    assert [len(a.patches) for a in axes] == [2, 2, 2]
    assert axes[2].patches[1].get_width() == pytest.approx(
        comparison["auto"].measured.ess_per_second
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "integrating out pays: 'auto' has 2.0 times the ESS/s of 'source'"),
        (1.1, "'auto' and 'source' are equal within the error of one chain each"),
        (3.0, "integrating out does not pay: 'source' has 3.0 times the ESS/s"),
    ],
)
def test_the_verdict_is_about_the_effective_draws_a_second(seconds, words):
    def pilot(name, integrated, seconds):
        chain = Measured(9, 60, 120, "", 360, 0, 100.0, "u", 1.0, 1.0, seconds, 0.0)
        return Pilot(name, integrated, measured=chain)

    both = pilot("source", (), 1.0), pilot("auto", ("u",), seconds)
    assert Comparison("groups", both, 60, 120).verdict == words


def test_without_matplotlib_the_figure_says_what_to_install(comparison, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(autmarg.RequestError, match="pip install"):
        comparison.figure()


def test_the_same_program_is_run_once_and_a_long_one_is_left_out(monkeypatch):
    """A tiny limit leaves out what is predicted to take longer, without compiling it."""

    def never(*args, **kwargs):
        raise AssertionError("compiled")

    monkeypatch.setattr(Sampler, "of", never)
    asked = {"first": {}, "second": {"marginalize": "all"}}
    found = autmarg.compare(groups, GROUP, Y, programs=asked, limit=1e-9, progress=False)
    first, second = found.pilots
    assert "left out: 500 steps are predicted to take" in first.note
    assert second.same == "first" and second.note == first.note
    assert "no program that integrates out was measured" in str(found)
    with pytest.raises(autmarg.RequestError, match="nothing to draw"):
        found.figure()


def test_a_chain_is_stopped_when_its_time_is_up():
    """The limit holds for what a prediction missed; the numbers are of the steps taken."""
    scale = autmarg.transform(lambda y: normal(y, numpyro.sample("tau", dist.HalfNormal(1))))
    kernel = MarginalNUTS(scale, scale.plan, dense_mass=False)
    sampler = Sampler.of(kernel, (Y,), warmup=20)
    cut = sampler.run(0, 10**9, limit=0.2)
    assert cut.cut == "sampling" and cut.warmup == 20 and 0 < len(cut.steps) < 10**9
    assert cut.gradients == cut.steps.sum() and len(cut.z["tau"]) == len(cut.steps)
    assert sampler.run(0, 5, limit=0.0).cut == "warm-up"
    whole, again = sampler.run(1, 30), sampler.run(1, 30)
    assert len(whole.steps) == 30 and whole.cut == ""
    np.testing.assert_array_equal(whole.z["tau"], again.z["tau"])


def test_requests_that_cannot_be_met():
    with pytest.raises(autmarg.RequestError, match="knows no program 'centred'"):
        autmarg.compare(groups, GROUP, Y, programs=("source", "centred"))
    with pytest.raises(autmarg.RequestError, match="knows no program 'given'"):
        autmarg.compare(groups, GROUP, Y, programs=("given",))
    with pytest.raises(autmarg.RequestError, match="no programs"):
        autmarg.compare(groups, GROUP, Y, programs={})
    with pytest.raises(autmarg.RequestError, match="at least 1 and 4"):
        autmarg.compare(groups, GROUP, Y, num_samples=3)


@pytest.mark.slow
def test_a_transformed_model_brings_its_own_options():
    given = autmarg.transform(groups, keep=["mu"])
    found = autmarg.compare(given, GROUP, Y, num_warmup=50, num_samples=50, progress=False)
    assert [p.program for p in found.pilots] == ["source", "noncentred", "given"]
    assert found["given"].integrated == ("u",)
    assert found["noncentred"].noncentred == ("u",)
    assert "noncentred: non-centres u" in str(found)


@pytest.mark.slow
def test_nothing_is_left_to_sample():
    def known(y):
        u = numpyro.sample("u", dist.Normal(0, 1).expand([6]))
        numpyro.sample("y", dist.Normal(u[GROUP], 0.5), obs=y)

    found = autmarg.compare(known, Y, programs=("source", "all"), progress=False)
    assert found["all"].measured.dimensions == 0
    assert found["all"].measured.ess > 100  # of 300 independent draws, least of six


@pytest.mark.slow
def test_a_model_that_is_left_as_it_is_says_so():
    def counts(y):
        numpyro.sample("y", dist.Bernoulli(logits=numpyro.sample("a", dist.Cauchy(0, 1))), obs=y)

    found = autmarg.compare(counts, jnp.array([1, 0, 1]), num_samples=50, progress=False)
    assert [p.same for p in found.pilots][1:] == ["source", "source"] or found.pilots[2].same
    assert "nothing is integrated out" in found.verdict


@pytest.mark.slow
def test_the_least_ess_is_that_of_arviz():
    az = pytest.importorskip("arviz")
    draws = np.cumsum(np.random.default_rng(0).normal(size=(800, 4)), 0) * 0.05
    draws += np.random.default_rng(1).normal(size=(800, 4))
    from autmarg.pilot.ess import bulk_ess

    ours = bulk_ess(draws)
    theirs = [float(az.ess(draws[None, :, k], method="bulk")) for k in range(4)]
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    assert jax.config.values["jax_enable_x64"]


def test_whitened_programs_are_named() -> None:
    """What the notes say of sites that are functions of noise."""
    pilot = Pilot("whiten", whitened=("u", "v"))
    assert pilot.ours
    assert "whiten: whitens u, v" in str(Comparison("model", (pilot,), 1, 1))
