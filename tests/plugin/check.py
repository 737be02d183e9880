"""What the plugin adds, without touching the package: run where it is installed."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from autmarg_example.families import Shifted

import autmarg

numpyro.enable_x64()
GROUP = np.array([0, 0, 1, 1, 2, 2])
Y = np.array([0.3, 0.1, -0.5, -0.2, 1.0, 0.8])


def model(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    with numpyro.plate("groups", 3):
        u = numpyro.sample("u", Shifted(mu, tau))
    numpyro.sample("pilot", dist.Normal(mu + 0.5 * u[0], tau), obs=0.4)
    numpyro.sample("y", dist.Normal(u[GROUP], 1.0), obs=y)
    variance = numpyro.sample("variance", dist.InverseGamma(3.0, tau))
    numpyro.sample("squares", dist.Gamma(4.5, 0.5 / variance), obs=7.7)


passes = autmarg.default_passes()
passes = passes.insert_before("detect", "count").insert_after("marginalise", "count")
marg = autmarg.transform(model, passes=passes)
plan = marg.plan(Y)
assert plan.integrated == ("mu", "u", "variance"), str(plan)
assert "InverseGamma-Gamma rule" in str(plan), str(plan)
assert "column 0 by itself" in str(plan) and "dense root of 2" in str(plan), str(plan)
terms = [type(term).__name__ for term in plan.groups[0].schedule.assembly.terms]
assert terms == ["Summed", "FewRows"], terms
autmarg.verify(marg, Y, points=2)
print("the plugin works")
