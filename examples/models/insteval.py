"""ETH instructor evaluations: three crossed random intercepts (lme4's InstEval)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from examples.data import load
from examples.models.reference import Reference, sites


def arguments() -> tuple[np.ndarray, ...]:
    """Student, instructor, department, service, and the evaluations."""
    data = load("insteval")
    return tuple(data[c] for c in ("student", "instructor", "department", "service", "y"))


def levels(codes: np.ndarray) -> int:
    """The number of levels of a grouping factor that is coded from 0."""
    return int(codes.max()) + 1


def plates(student, instructor, department, service, y=None):
    """Each random effect in a plate of its own."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("students", levels(student)):
        s = numpyro.sample("s", dist.Normal(0, 1))
    with numpyro.plate("instructors", levels(instructor)):
        d = numpyro.sample("d", dist.Normal(0, 1))
    with numpyro.plate("departments", levels(department)):
        p = numpyro.sample("p", dist.Normal(0, 1))
    with numpyro.plate("rows", len(student)):
        mean = alpha + b * service + s[student] + d[instructor] + p[department]
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def sample_shape(student, instructor, department, service, y=None):
    """Random effects drawn with a sample shape."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    s = numpyro.sample("s", dist.Normal(0, 1), sample_shape=(levels(student),))
    d = numpyro.sample("d", dist.Normal(0, 1), sample_shape=(levels(instructor),))
    p = numpyro.sample("p", dist.Normal(0, 1), sample_shape=(levels(department),))
    mean = alpha + b * service + s[student] + d[instructor] + p[department]
    numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def to_event(student, instructor, department, service, y=None):
    """Random effects as event dimensions, read with ``take``."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    s = numpyro.sample("s", dist.Normal(0, 1).expand([levels(student)]).to_event(1))
    d = numpyro.sample("d", dist.Normal(0, 1).expand([levels(instructor)]).to_event(1))
    p = numpyro.sample("p", dist.Normal(0, 1).expand([levels(department)]).to_event(1))
    mean = alpha + jnp.take(s, student) + jnp.take(d, instructor) + jnp.take(p, department)
    numpyro.sample("y", dist.Normal(mean + b * service, sigma).to_event(1), obs=y)


def design_matrix(student, instructor, department, service, y=None):
    """Fixed effects as ``X @ beta`` and departments through indicator columns."""
    X = np.column_stack([np.ones(len(service)), service])
    Z = jax.nn.one_hot(department, levels(department))
    beta = numpyro.sample("beta", dist.Normal(0, np.array([5.0, 1.0])).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    s = numpyro.sample("s", dist.Normal(0, 1).expand([levels(student)]))
    d = numpyro.sample("d", dist.Normal(0, 1).expand([levels(instructor)]))
    p = numpyro.sample("p", dist.Normal(0, 1).expand([Z.shape[1]]))
    with numpyro.plate("rows", len(student)):
        mean = X @ beta + s[student] + d[instructor] + Z @ p
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def centred_scales(student, instructor, department, service, y=None):
    """The scale of each random effect is unknown."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    tau_s = numpyro.sample("tau_s", dist.HalfNormal(1))
    tau_d = numpyro.sample("tau_d", dist.HalfNormal(1))
    tau_p = numpyro.sample("tau_p", dist.HalfNormal(1))
    with numpyro.plate("students", levels(student)):
        s = numpyro.sample("s", dist.Normal(0, tau_s))
    with numpyro.plate("instructors", levels(instructor)):
        d = numpyro.sample("d", dist.Normal(0, tau_d))
    with numpyro.plate("departments", levels(department)):
        p = numpyro.sample("p", dist.Normal(0, tau_p))
    with numpyro.plate("rows", len(student)):
        mean = alpha + b * service + s[student] + d[instructor] + p[department]
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def noncentred_scales(student, instructor, department, service, y=None):
    """As `centred_scales`, with standard normal sites times their scales."""
    alpha = numpyro.sample("alpha", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    tau_s = numpyro.sample("tau_s", dist.HalfNormal(1))
    tau_d = numpyro.sample("tau_d", dist.HalfNormal(1))
    tau_p = numpyro.sample("tau_p", dist.HalfNormal(1))
    z_s = numpyro.sample("z_s", dist.Normal().expand([levels(student)]).to_event(1))
    z_d = numpyro.sample("z_d", dist.Normal().expand([levels(instructor)]).to_event(1))
    z_p = numpyro.sample("z_p", dist.Normal().expand([levels(department)]).to_event(1))
    mean = (
        alpha
        + b * service
        + tau_s * z_s[student]
        + (tau_d * z_d)[instructor]
        + (tau_p * z_p)[department]
    )
    with numpyro.plate("rows", len(student)):
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


INSTEVAL = Reference(
    name="insteval",
    arguments=arguments,
    spellings={
        "plates": plates,
        "sample_shape": sample_shape,
        "to_event": to_event,
        "design_matrix": design_matrix,
    },
    integrated={
        "plates": sites("s d p alpha b"),
        "sample_shape": sites("s d p alpha b"),
        "to_event": sites("s d p alpha b"),
        "design_matrix": sites("s d p beta"),
    },
)

INSTEVAL_SCALES = Reference(
    name="insteval_scales",
    arguments=arguments,
    spellings={"centred": centred_scales, "noncentred": noncentred_scales},
    integrated={
        "centred": sites("s d p alpha b"),
        "noncentred": sites("z_s z_d z_p alpha b"),
    },
)
