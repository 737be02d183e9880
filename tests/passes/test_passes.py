"""Passes as a list that users change: what it takes, what it refuses, what it logs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import autmarg
from autmarg.ir.nodes import Factor, Sample
from tests.support.programs import CASES, GROUP, Y, scale

DEFAULT = (
    "quadrature", "whiten", "detect", "marginalise", "conjugate", "noncentre", "hoist", "simplify",
)  # fmt: skip


def model(y):
    tau, sigma = scale("tau"), scale()
    u = numpyro.sample("u", dist.Normal(0.0, tau).expand([5]))
    numpyro.sample("y", dist.Normal(u[GROUP], sigma), obs=y)


@dataclass(frozen=True)
class Scaled:
    """Multiply the prior scale of a site by a factor."""

    site: str
    factor: float
    name = "scaled"

    def apply(self, program):
        scaled = lambda d: dist.Normal(d.loc, self.factor * d.scale)  # noqa: E731
        return program.with_distribution(self.site, scaled)


@dataclass(frozen=True)
class Penalty:
    """A term of the log-density that reads a latent."""

    site: str
    name = "penalty"

    def apply(self, program):
        tape, (value,) = program.tape.extend(lambda u: [-(u**2).sum()], [program.tape.inputs["u"]])
        node = Factor("penalty", frozenset({self.site}), None, value=value)
        return program.replace_nodes([*program.nodes, node], tape)


@dataclass(frozen=True)
class Broken:
    """Returns what it was made with."""

    result: Any
    name = "broken"

    def apply(self, program):
        return self.result(program)


def plan_with(passes):
    return autmarg.transform(model, passes=passes).plan(Y)


def test_a_list_of_passes_can_be_changed():
    passes, own = autmarg.default_passes(), Scaled("u", 2.0)
    assert passes.names == DEFAULT
    assert passes.insert_after("marginalise", own).names[4] == "scaled"
    assert passes.insert_before("detect", own).names[2] == "scaled"
    assert passes.append(own)["scaled"] is own
    assert "noncentre" not in passes.drop("noncentre")
    assert passes.reorder("detect", "simplify").names == ("detect", "simplify")
    assert passes.replace("simplify", own).names == (*DEFAULT[:-1], "scaled")
    assert "1. Scaled(site='u', factor=2.0)" in str(autmarg.Passes((own,)))


def test_a_pass_takes_effect():
    def twice(y):
        tau, sigma = scale("tau"), scale()
        u = numpyro.sample("u", dist.Normal(0.0, 2.0 * tau).expand([5]))
        numpyro.sample("y", dist.Normal(u[GROUP], sigma), obs=y)

    values = {"tau": 0.7, "s": 0.4}
    passes = autmarg.default_passes().insert_before("detect", Scaled("u", 2.0))
    changed, direct = autmarg.transform(model, passes=passes), autmarg.transform(twice)
    found, expected = (float(log_density(m, (Y,), {}, values)[0]) for m in (changed, direct))
    assert found == pytest.approx(expected, rel=1e-12)
    with pytest.raises(autmarg.ExactnessError):  # it is another model than the source
        autmarg.verify(changed, Y, points=1, quiet=True)


@pytest.mark.parametrize(
    "gone", [("marginalise",), ("conjugate", "noncentre", "simplify"), DEFAULT]
)
def test_passes_can_be_dropped(gone):
    marg = autmarg.transform(model, passes=autmarg.default_passes().drop(*gone))
    plan = marg.plan(Y)
    assert plan.integrated == (() if "marginalise" in gone else ("u",))
    assert set(plan.kept) == {r.site for r in plan.refusals}
    assert ("no pass integrates it out" in str(plan)) == ("marginalise" in gone)
    autmarg.verify(marg, Y, points=1, quiet=True)


@pytest.mark.parametrize("own", [Scaled("u", 2.0), Scaled("y", 2.0), Penalty("u")])
def test_what_was_decided_on_another_graph_is_not_applied(own):
    with pytest.raises(autmarg.RequestError, match="expected that pass before 'detect'"):
        plan_with(autmarg.default_passes().insert_after("detect", own))


def test_a_reader_of_what_was_integrated_out_is_refused():
    with pytest.raises(autmarg.PassError, match=r"after pass 'penalty': .* integrated out"):
        plan_with(autmarg.default_passes().insert_after("marginalise", Penalty("u")))
    assert plan_with(autmarg.default_passes().insert_before("detect", Penalty("u"))).kept == (
        "tau", "s", "u",
    )  # fmt: skip


def test_every_rewrite_is_logged():
    step = next(s for s in plan_with(autmarg.default_passes()).history if s.name == "marginalise")
    assert step.rule == "linear Gaussian" and step.seconds >= 0
    assert step.sites == ("u", "y", "marginal(y)", "recover(u)")
    assert {p.line for p in step.places} <= set(range(19, 30))
    assert isinstance(step.before["u"], Sample) and "u" not in step.after
    assert "marginalise (linear Gaussian): u, y, marginal(y), recover(u) at" in str(step)


def test_a_pass_may_remove_a_site():
    def without(program):
        return program.replace_nodes(n for n in program.nodes if n.name != "idle")

    def idle(y):
        numpyro.sample("idle", dist.Cauchy())
        model(y)

    passes = autmarg.default_passes(keep=["idle"]).append(Broken(without))
    plan = autmarg.transform(idle, passes=passes).plan(Y)
    entry = next(e for e in plan.entries if e.site == "idle")
    assert (entry.action, entry.why) == ("removed", "by broken")
    assert plan.kept == ("tau", "s")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            lambda program: None,
            "after pass 'broken': expected a Program from apply, found NoneType",
        ),
        (lambda p: p.replace_nodes([*p.nodes, p.nodes[0]]), "after pass 'broken': .* two nodes"),
        (lambda p: p["nobody"], r"'broken' failed at test_passes.py:\d+: KeyError: 'nobody'"),
        (lambda p: p.replace_nodes(["y"]), "expected nodes of autmarg.ir.nodes, found a str"),
        (
            lambda p: p.replace_nodes(replace(n, parents=frozenset()) for n in p.nodes),
            "expected what 'u' reads among its parents, found 'tau' only in its expressions",
        ),
        (
            lambda p: p.replace_nodes(replace(n, shape=(7,)) for n in p.nodes),
            r"expected 'tau' of shape \(\), its distribution's, found \(7,\)",
        ),
        (
            lambda p: p.replace_nodes([replace(p["u"], scale=999), *p.nodes[:1]]),
            r"the expressions of 'u' on the program's tape, found the numbers \[999\]",
        ),
        (
            lambda p: p.with_distribution("tau", lambda d, u: dist.HalfNormal(u.sum()), ["u"]),
            "found a circle: tau → u",
        ),
        (lambda p: p.with_distribution("v", lambda d: d), "expected one of tau, s, u, y"),
        (lambda p: p.with_distribution("u", lambda d: d, ["v"]), "expected names of"),
        (lambda p: p.with_distribution("u", lambda d: 3), "given int: expected a NumPyro"),
        (
            lambda p: p.with_distribution("u", lambda d: dist.Normal(0, 1).expand([3])),
            r"Distribution of shape \(3,\) .* broadcasts to \(5,\)",
        ),
    ],
)
def test_broken_passes_are_named(result, words):
    with pytest.raises(autmarg.RequestError, match=words):
        plan_with(autmarg.Passes((Broken(result),)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: autmarg.Passes((3,)), "3 is no pass"),
        (lambda: autmarg.default_passes().drop("polish"), "no pass 'polish'; expected one of"),
        (lambda: plan_with(autmarg.default_passes().drop("detect")), "'marginalise' needs a plan"),
        (
            lambda: autmarg.transform(model, keep=["u"], passes=autmarg.default_passes()),
            "both passes and options",
        ),
    ],
)
def test_requests_that_cannot_be_met(call, words):
    with pytest.raises(autmarg.RequestError, match=words):
        call()


def test_options_go_to_the_default_passes():
    assert plan_with(autmarg.default_passes(keep=["u"])).integrated == ()
    case = CASES["product_of_latents"]
    passes = autmarg.default_passes(marginalize=["a"])
    assert autmarg.transform(case.model, passes=passes).plan(Y).integrated == ("a",)
