"""Maximum-likelihood models with published objectives (lme4 and MixedModels.jl agree on them).

Fixed effects, scales and covariance factors have improper flat priors, so that the log-density of
the kept sites, once the random effects are integrated out, is log p(y | fixed effects, scales).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from examples.data import load
from examples.models.reference import Model, sites


@dataclass(frozen=True, eq=False)
class Published:
    """A likelihood with a published optimum.

    Attributes:
        name: the data set.
        formula: the model in lme4's notation.
        arguments: loads the data and returns the model's positional arguments.
        model: the NumPyro model, whose kept sites have improper flat priors.
        random_effects: the sites to integrate out.
        objective: the published minimum of -2 log p(y | fixed effects, scales).
        start: values of the kept sites from which to search.
    """

    name: str
    formula: str
    arguments: Callable[[], tuple[Any, ...]]
    model: Model
    random_effects: frozenset[str]
    objective: float
    start: dict[str, Any]


def flat(name: str):
    """A real parameter without prior."""
    return numpyro.sample(name, dist.ImproperUniform(constraints.real, (), ()))


def positive(name: str):
    """A positive parameter without prior."""
    return numpyro.sample(name, dist.ImproperUniform(constraints.positive, (), ()))


def columns(name: str, *names: str) -> Callable[[], tuple[np.ndarray, ...]]:
    """A function that loads some columns of a data set."""

    def arguments() -> tuple[np.ndarray, ...]:
        data = load(name)
        return tuple(data[column] for column in names)

    return arguments


def dyestuff(batch, y=None):
    """yield ~ 1 + (1 | batch)."""
    mean, tau, sigma = flat("mean"), positive("tau"), positive("sigma")
    with numpyro.plate("batches", len(np.unique(batch))):
        b = numpyro.sample("b", dist.Normal(0, tau))
    with numpyro.plate("rows", len(batch)):
        numpyro.sample("yield", dist.Normal(mean + b[batch], sigma), obs=y)


def dyestuff_restricted(batch, y=None, prior_scale: float = 1e6):
    """As `dyestuff`, with a nearly flat normal prior of the mean, to be integrated out."""
    tau, sigma = positive("tau"), positive("sigma")
    mean = numpyro.sample("mean", dist.Normal(0, prior_scale))
    with numpyro.plate("batches", len(np.unique(batch))):
        b = numpyro.sample("b", dist.Normal(0, tau))
    with numpyro.plate("rows", len(batch)):
        numpyro.sample("yield", dist.Normal(mean + b[batch], sigma), obs=y)


def penicillin(plate, sample, y=None):
    """diameter ~ 1 + (1 | plate) + (1 | sample), crossed."""
    mean, sigma = flat("mean"), positive("sigma")
    tau_p, tau_s = positive("tau_p"), positive("tau_s")
    with numpyro.plate("plates", len(np.unique(plate))):
        p = numpyro.sample("p", dist.Normal(0, tau_p))
    with numpyro.plate("samples", len(np.unique(sample))):
        s = numpyro.sample("s", dist.Normal(0, tau_s))
    with numpyro.plate("rows", len(plate)):
        numpyro.sample("diameter", dist.Normal(mean + p[plate] + s[sample], sigma), obs=y)


def pastes(batch, sample, y=None):
    """strength ~ 1 + (1 | batch / cask), nested; a sample is one cask of one batch."""
    mean, sigma = flat("mean"), positive("sigma")
    tau_b, tau_s = positive("tau_b"), positive("tau_s")
    _, first_row = np.unique(sample, return_index=True)
    batch_of_sample = batch[first_row]
    with numpyro.plate("batches", len(np.unique(batch))):
        b = numpyro.sample("b", dist.Normal(mean, tau_b))
    with numpyro.plate("samples", len(batch_of_sample)):
        s = numpyro.sample("s", dist.Normal(b[batch_of_sample], tau_s))
    with numpyro.plate("rows", len(sample)):
        numpyro.sample("strength", dist.Normal(s[sample], sigma), obs=y)


def sleepstudy(subject, days, y=None):
    """reaction ~ 1 + days + (1 + days | subject)."""
    beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), (2,)))
    sigma = positive("sigma")
    T = numpyro.sample("T", dist.ImproperUniform(constraints.lower_cholesky, (), (2, 2)))
    with numpyro.plate("subjects", len(np.unique(subject))):
        u = numpyro.sample("u", dist.MultivariateNormal(scale_tril=T))
    with numpyro.plate("rows", len(days)):
        mean = beta[0] + u[subject, 0] + days * (beta[1] + u[subject, 1])
        numpyro.sample("reaction", dist.Normal(mean, sigma), obs=y)


def insteval(student, instructor, department, service, y=None):
    """y ~ 1 + service + (1 | student) + (1 | instructor) + (1 | department)."""
    alpha, b, sigma = flat("alpha"), flat("b"), positive("sigma")
    tau_s, tau_d, tau_p = positive("tau_s"), positive("tau_d"), positive("tau_p")
    with numpyro.plate("students", int(student.max()) + 1):
        s = numpyro.sample("s", dist.Normal(0, tau_s))
    with numpyro.plate("instructors", int(instructor.max()) + 1):
        d = numpyro.sample("d", dist.Normal(0, tau_d))
    with numpyro.plate("departments", int(department.max()) + 1):
        p = numpyro.sample("p", dist.Normal(0, tau_p))
    with numpyro.plate("rows", len(student)):
        mean = alpha + b * service + s[student] + d[instructor] + p[department]
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


PUBLISHED: dict[str, Published] = {
    case.name: case
    for case in (
        Published(
            "dyestuff",
            "yield ~ 1 + (1 | batch)",
            columns("dyestuff", "batch", "yield"),
            dyestuff,
            sites("b"),
            327.32706,
            {"mean": 1500.0, "tau": 50.0, "sigma": 50.0},
        ),
        Published(
            "penicillin",
            "diameter ~ 1 + (1 | plate) + (1 | sample)",
            columns("penicillin", "plate", "sample", "diameter"),
            penicillin,
            sites("p s"),
            332.18835,
            {"mean": 20.0, "sigma": 1.0, "tau_p": 1.0, "tau_s": 1.0},
        ),
        Published(
            "pastes",
            "strength ~ 1 + (1 | batch / cask)",
            columns("pastes", "batch", "sample", "strength"),
            pastes,
            sites("b s"),
            247.99447,
            {"mean": 60.0, "sigma": 1.0, "tau_b": 1.0, "tau_s": 1.0},
        ),
        Published(
            "sleepstudy",
            "reaction ~ 1 + days + (1 + days | subject)",
            columns("sleepstudy", "subject", "days", "reaction"),
            sleepstudy,
            sites("u"),
            1751.93934,
            {"beta": [250.0, 10.0], "sigma": 25.0, "T": [[20.0, 0.0], [0.0, 5.0]]},
        ),
        Published(
            "insteval",
            "y ~ 1 + service + (1 | student) + (1 | instructor) + (1 | department)",
            columns("insteval", "student", "instructor", "department", "service", "y"),
            insteval,
            sites("s d p"),
            237721.76877,
            {"alpha": 3.3, "b": 0.0, "sigma": 1.2, "tau_s": 0.3, "tau_d": 0.5, "tau_p": 0.1},
        ),
    )
}

DYESTUFF_RESTRICTED = 319.65428
"""The REML criterion of `dyestuff`, reached by integrating `dyestuff_restricted`'s mean too."""
