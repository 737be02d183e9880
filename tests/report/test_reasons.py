"""Reasons at length: the line, the caret, and what would make the rule apply."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.analysis.needed import NEEDED
from tests.programs.test_generated import RULES


def model(y):
    a = numpyro.sample("a", dist.Normal(0, 1))
    b, c = numpyro.sample("b", dist.Normal(0, 1)), numpyro.sample("c", dist.Cauchy(0, 1))
    d, e = numpyro.sample("d", dist.Normal(0, 1)), numpyro.sample("e", dist.Normal(0, 1))
    f = numpyro.sample("f", dist.Normal(0, 1))
    numpyro.factor("penalty", -(f**2))
    mean = jnp.exp(a) + b * e + jnp.where(d > 0, 1.0, c)
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.parametrize(
    ("site", "rule", "under"),
    [
        ("a", "nonlinear mean", "jnp.exp(a)"),
        ("b", "product of latents", "b * e"),
        ("c", "non-Gaussian prior", "dist.Cauchy(0, 1)"),
        ("d", "choice by a latent", "d > 0"),
        ("f", "factor", "-(f**2)"),
    ],
)
def test_a_caret_stands_under_what_is_in_the_way(site, rule, under):
    plan = autmarg.transform(model).plan(np.ones(4))
    (refusal,) = (r for r in plan.refusals if r.site == site)
    assert (refusal.rule, refusal.needed) == (rule, NEEDED[rule])
    text = next(p for p in plan.explain().split("\n\n") if p.startswith(f"{site} is sampled"))
    head, _, advice = text.partition("\n  to do    ")
    *_, source, carets = head.splitlines()
    start = carets.index("^")
    assert source[start : start + carets.count("^")] == under
    assert advice == NEEDED[rule]


def test_without_the_source_there_is_no_caret():
    scope: dict = {}
    exec("def model(y):\n    n.sample('y', d.Normal(n.sample('u', d.Cauchy()), 1), obs=y)",
         {"n": numpyro, "d": dist}, scope)  # fmt: skip
    text = autmarg.transform(scope["model"]).plan(np.ones(3)).explain()
    assert "u is sampled" in text and "<string>:2" in text and "^" not in text


def test_every_condition_says_what_it_would_take():
    assert set(NEEDED) >= RULES


def scales(y):
    s, t = numpyro.sample("s", dist.HalfNormal(1)), numpyro.sample("t", dist.HalfNormal(1))
    a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
    u = numpyro.sample("u", dist.Normal(0, t).expand([4]))
    numpyro.sample("z", dist.Poisson(jnp.exp(a + b)), obs=1)
    numpyro.sample("y", dist.Normal(u, s), obs=y)


def test_the_plan_says_once_what_holds_for_several_sites():
    text = " ".join(str(autmarg.transform(scales).plan(np.ones(4))).split())
    file, line = "test_reasons.py", scales.__code__.co_firstlineno
    assert (
        f"'s' ({file}:{line + 1}) is a HalfNormal, not Gaussian, and it scales the noise of 'y' "
        f"({file}:{line + 5}), so it is sampled. The same holds for 't', which scales 'u' "
        f"({file}:{line + 3}). 'a' ({file}:{line + 2}) is read by 'z' ({file}:{line + 4}), "
        "a Poisson, not Gaussian, so it must be sampled. The same holds for 'b'."
    ) in text


def test_what_enters_a_covariance_scales_nothing():
    def model(y):
        r = numpyro.sample("r", dist.Beta(2, 2))
        near = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
        u = numpyro.sample("u", dist.CAR(0.0, r, 1.0, near))
        numpyro.sample("y", dist.Normal(u, 1.0), obs=y)

    text = " ".join(str(autmarg.transform(model).plan(np.zeros(4))).split())
    assert "not Gaussian, and it enters the covariance of 'u'" in text


def test_what_holds_for_the_whole_model_is_said_once():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("rows", len(y)):
            k = numpyro.sample(
                "k", dist.Categorical(jnp.ones(2) / 2), infer={"enumerate": "parallel"}
            )
            numpyro.sample("y", dist.Normal(m[k], 1.0), obs=y)

    text = str(autmarg.transform(model).plan(jnp.arange(3.0)))
    _, reasons = text.split("sampled because\n")
    assert reasons.count("the model is left as it is") == 1
    assert text.count("model left as it is") == 1  # of 'm' in the table
    assert "2 dimensions are sampled" in text  # NumPyro's HMC sums over 'k'
    assert re.search(r"k +3 +summed over +discrete", text)
