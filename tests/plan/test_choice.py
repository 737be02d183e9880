"""What "auto" leaves sampled though it could be integrated out, and what is too large to plan."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.plan import order

pytestmark = pytest.mark.usefixtures("quick_compilation")

LARGE, SMALL = 400, 120
_RNG = np.random.default_rng(0)
FIRST, SECOND = _RNG.integers(0, LARGE, 8000), _RNG.integers(0, SMALL, 8000)
Y = _RNG.normal(size=8000)


def crossed(first, second, y=None, levels=(LARGE, SMALL)):
    """Two crossed factors; their levels meet nearly everywhere."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    sigma, tau, omega = (numpyro.sample(n, dist.HalfNormal(1)) for n in ("sigma", "tau", "omega"))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([levels[0], 2]).to_event(2))
    w = numpyro.sample("w", dist.Normal(0, omega).expand([levels[1], 2]).to_event(2))
    x = jnp.linspace(-1, 1, len(first))
    mean = mu + u[first, 0] + w[second, 0] + x * (u[first, 1] + w[second, 1])
    numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def test_a_dear_factor_is_sampled():
    """The smaller of two crossed factors stays, non-centred, for a reason that is given; all of the
    rest goes, and "all" integrates everything out."""
    marg = autmarg.transform(crossed)
    plan = marg.plan(FIRST, SECOND, Y)
    assert plan.integrated == ("mu", "u")
    assert plan.noncentred == ("w",)
    (reason,) = (r for r in plan.refusals if r.site == "w")
    assert reason.rule == "cost"
    assert "sampled since a gradient is then predicted to take" in reason.reason
    everything = autmarg.transform(crossed, marginalize="all").plan(FIRST, SECOND, Y)
    assert everything.integrated == ("mu", "u", "w")


@pytest.mark.slow
def test_a_program_with_a_sampled_factor_is_exact():
    autmarg.verify(crossed, FIRST, SECOND, Y, points=2, quiet=True)


def test_effects_that_the_data_know_well_are_integrated_out_all_the_same():
    """Sampled standard noise would be narrow and bent along the scale, however cheap a step is."""
    strong = 1e3 * (_RNG.normal(size=LARGE)[FIRST] + _RNG.normal(size=SMALL)[SECOND]) + Y
    assert autmarg.transform(crossed).plan(FIRST, SECOND, strong).integrated == ("mu", "u", "w")


def test_a_cheap_design_is_integrated_out_whole():
    plan = autmarg.transform(crossed).plan(FIRST % 40, SECOND % 12, Y, levels=(40, 12))
    assert plan.integrated == ("mu", "u", "w")


def test_a_short_walk_beside_many_coefficients_is_no_chain():
    """A filter that carries them along multiplies small matrices at every row.

    Rows of equal noise are one for each step, and the walk is a chain.
    """
    when, x = np.tile(np.arange(20), 4), _RNG.normal(size=(80, 40))
    noise = np.repeat(np.arange(4), 20)

    def model(y, noises):
        s, t = numpyro.sample("s", dist.HalfNormal(1)), numpyro.sample("t", dist.HalfNormal(1))
        sd = numpyro.sample("sd", dist.HalfNormal(1).expand([noises]))
        b = numpyro.sample("b", dist.Normal(0, t).expand([40]))
        walk = numpyro.sample("walk", dist.GaussianRandomWalk(s, 20))
        numpyro.sample("y", dist.Normal(x @ b + walk[when], sd[noise % noises]), obs=y)

    marg = autmarg.transform(model, marginalize="all")
    first = [marg.plan(Y[:80], noises).groups[0].structure[0] for noises in (4, 1)]
    assert first == ["20 states written out in innovations", "1 chain of 20 steps, states of 1"]


def test_what_is_too_large_is_refused_and_auto_takes_the_next_best(monkeypatch):
    monkeypatch.setattr(order, "MAX_ROOT", 100)
    args = FIRST, SECOND, Y
    with pytest.raises(autmarg.RequestError, match=r"dense root of .* columns is more"):
        autmarg.transform(crossed, marginalize="all").plan(*args)
    plan = autmarg.transform(crossed).plan(*args)
    assert plan.integrated == ("mu", "u")
    assert "dense root" in next(r.reason for r in plan.refusals if r.site == "w")
