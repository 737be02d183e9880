"""The oracle's verdicts, and its words for what it finds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.analysis import signs
from autmarg.gaussian.schedule import Schedule
from autmarg.oracle.identity import Identity
from autmarg.oracle.points import MAGNITUDES, scales_of
from autmarg.posterior.evidence import is_proper
from tests.support.lanes import lanes
from tests.support.programs import GROUP, Y

FILE = "test_verify.py"


def group_effects(y=None):
    s, tau = numpyro.sample("s", dist.HalfNormal(1)), numpyro.sample("tau", dist.HalfNormal(1))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([5]))
    numpyro.sample("y", dist.Normal(u[GROUP], s), obs=y)


def two_groups(y):
    s = numpyro.sample("s", dist.HalfNormal(1))
    u, v = numpyro.sample("u", dist.Normal(0, 1)), numpyro.sample("v", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(u, s), obs=y)
    numpyro.sample("z", dist.Normal(v, s), obs=y[:7])


def line(model, offset):
    return f"({FILE}:{model.__code__.co_firstlineno + offset})"


def raised(error, model, *args, **options):
    with pytest.raises(error) as caught:
        autmarg.verify(model, *args, points=2, quiet=True, **options)
    text, report = str(caught.value), caught.value.report
    assert "because of ." not in text and "over 0 points" not in text
    return text, report


def test_exact():
    report = autmarg.verify(group_effects, Y, points=2, quiet=True)
    assert report.verdict == "exact" and report.exact and not report.lost
    assert len(report.errors) == 4 and len(report.scaled_errors) == 3 * len(MAGNITUDES)


def test_what_differs_is_named(monkeypatch):
    density = Schedule._density
    monkeypatch.setattr(
        Schedule, "_density", lambda s, *a: density(s, *a) + 1e-6 * (s.assembly.n == 7)
    )
    text, report = raised(autmarg.ExactnessError, two_groups, Y)
    assert "NOT EXACT" in text
    assert report.verdict == "not exact" and not report.exact
    ((sites, error),) = report.differing
    assert sites == f"'v' with 'z' {line(two_groups, 4)}" and error == pytest.approx(1e-6, rel=0.01)
    assert f"the terms that differ: {sites} by 1.00e-06 nats" in text


def test_digits_that_are_lost_are_no_error(monkeypatch):
    """A density of ours that is NaN where the source's is finite."""
    density = Schedule._density
    monkeypatch.setattr(Schedule, "_density", lambda s, *a: density(s, *a) * jnp.nan)
    text, report = raised(autmarg.InconclusiveError, group_effects, Y)
    assert report.verdict == "inconclusive" and len(report.lost) == 4 + 3 * len(MAGNITUDES)
    assert set(report.lost[0]) == {"s", "tau"} and report.left_out == 0
    assert "digits lost at" in text and "s = " in text
    assert not issubclass(autmarg.InconclusiveError, autmarg.InternalError)


def test_a_density_where_the_source_has_none_is_another_density(monkeypatch):
    def model(y):
        s = numpyro.sample("s", dist.Normal(0, 1))
        u = numpyro.sample("u", dist.Normal(0, s))
        numpyro.sample("y", dist.Normal(u, 1.0), obs=y)

    assert autmarg.verify(model, Y, points=8, quiet=True, marginalize="all").left_out
    monkeypatch.setattr(signs, "of_scales", lambda scales: jnp.zeros(()))
    with pytest.raises(autmarg.ExactnessError, match="NOT EXACT") as caught:
        autmarg.verify(model, Y, points=8, quiet=True, marginalize="all")
    (reason,) = caught.value.report.unfounded
    assert reason.startswith(f"'u' {line(model, 2)} has log-density NaN at ")
    assert f"autmarg's density is finite where the source has none: {reason}" in str(caught.value)


def test_far_from_all_draws_the_source_may_have_no_density(monkeypatch):
    """Its likelihood underflows there, while the density without the latent stays finite."""
    usual, far = Identity.at, []

    def at(self, points):
        found = usual(self, points)
        far.append((points.stretch != 1) & ~np.any(points.exponents, axis=1))
        none = np.where(far[0], -np.inf, found.sites["y"])
        return replace(found, sites={**found.sites, "y": none})

    monkeypatch.setattr(Identity, "at", at)
    report = autmarg.verify(group_effects, Y, points=8, quiet=True)
    assert report.left_out == far[0].sum() > 0 and not report.unfounded


@pytest.mark.parametrize("integrated", lanes([True, False], quick=[False]))
def test_a_covariance_of_the_users_that_is_not_positive_definite(integrated):
    distance = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))

    def model(y):
        length = numpyro.sample("length", dist.LogNormal(1.0, 0.1))
        kernel = jnp.exp(-(distance**2) / length) - 2.0 * jnp.eye(6)
        z = numpyro.sample("z", dist.MultivariateNormal(0.0, kernel))
        if integrated:
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)
        else:
            numpyro.sample("y", dist.Bernoulli(logits=z), obs=y)

    text, report = raised(autmarg.InconclusiveError, model, np.arange(6) % 2)
    assert report.left_out and not report.lost
    assert f"'z' {line(model, 3)} draws no finite value from its own prior" in text
    assert "positive definite" in text and "report it" not in text


def test_points_without_a_density_are_counted_by_site():
    def model(y):
        u = numpyro.sample("u", dist.Normal(0, 1))
        t = numpyro.sample("t", dist.HalfNormal(3))
        numpyro.sample("z", dist.Normal(u, 1.0), obs=0.3)
        numpyro.sample("y", dist.Uniform(0, t), obs=y)

    report = autmarg.verify(model, jnp.array(2.0), points=8, quiet=True)
    assert report.exact and report.left_out
    (reason,) = report.reasons
    assert reason.startswith(f"'y' {line(model, 4)} has log-density -inf at {report.left_out}")
    text, report = raised(autmarg.InconclusiveError, model, jnp.array(1e30))
    assert f"'y' {line(model, 4)}" in text and not report.errors


def test_where_the_source_has_no_density_nothing_is_verified():
    def model(y):
        numpyro.factor("never", -np.inf)
        numpyro.sample("y", dist.Normal(numpyro.sample("u", dist.Normal(0, 1)), 1.0), obs=y)

    text, report = raised(autmarg.InconclusiveError, model, Y)
    assert f"'never' {line(model, 1)} has log-density -inf" in text
    assert report.verdict == "inconclusive" and not report.exact
    assert issubclass(autmarg.InconclusiveError, autmarg.ModelError)


def test_without_data_the_model_is_the_source():
    plan = autmarg.transform(group_effects).plan()
    assert plan.integrated == () and plan.kept == ("s", "tau", "u", "y")
    assert "left as the source: it has no observed site" in str(plan)
    report = autmarg.verify(group_effects, points=2, quiet=True)
    assert report.exact and "left as the source" in str(report)


@dataclass(frozen=True)
class Wider:
    """Doubles the scale of a normal site."""

    site: str
    name = "wider"

    def apply(self, program):
        return program.with_distribution(self.site, lambda d: dist.Normal(d.loc, 2 * d.scale))


@dataclass(frozen=True)
class WiderOnPurpose(Wider):
    """The same, as it declares."""

    changes_density = True


def test_a_pass_that_changes_the_model_on_purpose():
    passes = autmarg.default_passes().insert_before("detect", WiderOnPurpose("u"))
    marg = autmarg.transform(group_effects, passes=passes)
    report = autmarg.verify(marg, Y, points=2, quiet=True)
    assert report.exact and "compared with the model after 'wider'" in str(report)
    text, _ = raised(autmarg.ExactnessError, marg, Y, against=[])
    assert f"'u' with 'y' {line(group_effects, 3)}" in text


def test_a_pass_that_does_not_say_that_it_changes_the_model():
    passes = autmarg.default_passes().insert_before("detect", Wider("u"))
    marg = autmarg.transform(group_effects, passes=passes)
    text, _ = raised(autmarg.ExactnessError, marg, Y)
    assert "not autmarg's own: 'wider'" in text and "changes_density = True" in text
    assert autmarg.verify(marg, Y, points=2, quiet=True, against="wider").exact
    with pytest.raises(autmarg.RequestError, match="there is no pass 'wide'"):
        autmarg.verify(marg, Y, against="wide")


def test_data_far_from_the_prior_are_judged_by_the_size_of_the_log_density(monkeypatch):
    """log p has no 10⁻⁹ nats then, but a relative error of 10⁻¹¹ is found."""

    def model(y):
        s = numpyro.sample("s", dist.HalfCauchy(1.0))
        b = numpyro.sample("b", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(b, s), obs=y)

    report = autmarg.verify(model, 1e6 + Y, points=2, quiet=True)
    assert report.exact and min(report.limits) > report.tolerance
    assert "is so large that rounding is the limit" in str(report)
    density = Schedule.log_density
    monkeypatch.setattr(Schedule, "log_density", lambda *a: density(*a) * (1 + 1e-11))
    raised(autmarg.ExactnessError, model, 1e6 + Y)


def test_where_rounding_decides_whether_there_is_a_density_nothing_is_compared(monkeypatch):
    """Probabilities beside one: the source's own digits are gone there."""

    def model(y):
        b = numpyro.sample("b", dist.Normal(0, 1))
        gate = 1 - jnp.exp(-36.0 - 0.01 * jnp.abs(b))
        numpyro.sample("y", dist.ZeroInflatedPoisson(gate, rate=2.0), obs=y)

    moved = Identity._target

    def other(self, theta):
        return {name: x + 1e-3 for name, x in moved(self, theta).items()}

    monkeypatch.setattr(Identity, "_target", other)
    text, report = raised(autmarg.InconclusiveError, model, np.ones(7))
    assert report.left_out and not report.errors
    assert "would not be if its numbers were rounded otherwise" in text


def test_what_elimination_says_that_it_may_lose_is_allowed():
    """Crossed effects of a size of one under noise of 10⁻⁵: sums have no digits for a billionth."""
    first, second = np.repeat(np.arange(3), 30), np.tile(np.arange(30), 3)

    def model(y):
        s = numpyro.sample("s", dist.LogNormal(-12, 0.5))
        u = numpyro.sample("u", dist.Normal(0, 5).expand([30]))
        v = numpyro.sample("v", dist.Normal(0, 1).expand([3]))
        numpyro.sample("y", dist.Normal(u[second] + v[first], s), obs=y)

    report = autmarg.verify(model, np.zeros(90), points=8, quiet=True, marginalize="all")
    assert report.exact
    assert max(map(abs, report.errors)) > report.tolerance


def test_which_latents_are_scales():
    def model(y):
        s = numpyro.sample("s", dist.HalfNormal(1).expand([5]).to_event(1))
        bounded = numpyro.sample("bounded", dist.Uniform(0, 9))
        moving = numpyro.sample("moving", dist.Uniform(0, bounded))
        log_tau = numpyro.sample("log_tau", dist.StudentT(3, 0, 1))
        r = numpyro.sample("r", dist.Beta(2, 2))
        slope = numpyro.sample("slope", dist.Cauchy(0, 1))
        u = numpyro.sample("u", dist.Normal(0, jnp.exp(log_tau)).expand([5]))
        noise = s[GROUP] + bounded + moving + r
        numpyro.sample("y", dist.Normal(u[GROUP] + slope, noise), obs=y)

    plan = autmarg.transform(model).plan(Y)
    found = {s.name: (s.logarithm, s.upper) for s in scales_of(plan.program, plan.kept)}
    assert found == {
        "s": (False, np.inf), "bounded": (False, 9.0), "log_tau": (True, np.inf),
        "r": (False, 1.0),
    }  # fmt: skip


class Undrawn(dist.HalfNormal):
    """As a truncated Student-t without TensorFlow Probability: a density, and no draws."""

    def sample(self, key, sample_shape=()):
        raise ImportError("a package is not installed")


def test_a_prior_whose_draws_need_a_package_that_is_not_installed():
    """NUTS needs no draws of a prior: nor do a plan, verify, or whether priors are proper."""

    def model(y):
        scale = numpyro.sample("scale", Undrawn(2.0))
        u = numpyro.sample("u", dist.Normal(0, scale).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(u[np.arange(6) % 3], 1.0), obs=y)

    marg, y = autmarg.transform(model, marginalize="all"), np.arange(6.0)
    assert autmarg.verify(marg, y, points=2, quiet=True).verdict == "exact"
    assert is_proper(marg, (y,), {})
