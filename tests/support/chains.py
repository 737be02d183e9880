"""Models with chains: scans, loops and walks, each with what goes and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

T = 10
Y = jnp.asarray(np.random.default_rng(5).normal(size=T))
PANEL = jnp.asarray(np.random.default_rng(6).normal(size=(T, 3)))
X = np.linspace(-1, 1, T)


@dataclass(frozen=True)
class Chain:
    """A model, its data, the sites that go, and what one stage of its plan is called."""

    model: Callable[..., Any]
    data: Any
    integrated: frozenset[str]
    structure: str


CHAINS: dict[str, Chain] = {}


def chain(sites: str, structure: str, data: Any = Y) -> Callable[..., Any]:
    def register(model: Callable[..., Any]) -> Callable[..., Any]:
        CHAINS[model.__name__] = Chain(model, data, frozenset(sites.split()), structure)
        return model

    return register


def scale(name: str) -> Any:
    return numpyro.sample(name, dist.HalfNormal(1.0))


@chain("x x0", f"1 chain of {T} steps, states of 2")
def autoregressive(y=None):
    """AR(2) with two latent initial values; the carry is a shift register."""
    phi = numpyro.sample("phi", dist.Uniform(-0.5, 0.5).expand([2]))
    tau, s = scale("tau"), scale("s")
    x0 = numpyro.sample("x0", dist.Normal(0, 1).expand([2]))

    def step(carry, y):
        a, b = carry
        x = numpyro.sample("x", dist.Normal(phi[0] * a + phi[1] * b, tau))
        numpyro.sample("y", dist.Normal(x, s), obs=y)
        return (x, a), x

    _, xs = scan(step, (x0[0], x0[1]), y, length=T)
    numpyro.deterministic("last", xs[-1])


@chain("level slope l0 b0 beta", f"1 chain of {T} steps, states of 2")
def local_linear_trend(y=None):
    t1, t2, s = scale("t1"), scale("t2"), scale("s")
    l0, b0 = numpyro.sample("l0", dist.Normal(0, 5)), numpyro.sample("b0", dist.Normal(0, 5))
    beta = numpyro.sample("beta", dist.Normal(0, 1))

    def step(carry, now):
        (level, slope), (y, x) = carry, now
        level = numpyro.sample("level", dist.Normal(level + slope, t1))
        slope = numpyro.sample("slope", dist.Normal(slope, t2))
        numpyro.sample("y", dist.Normal(level + beta * x, s), obs=y)
        return (level, slope), None

    scan(step, (l0, b0), (y, X), length=T)


@chain("u x", f"3 chains of {T} steps, states of 1", PANEL)
def panel(y=None):
    """Three series with means of their own, two of them observed."""
    tau, s, phi = scale("tau"), scale("s"), numpyro.sample("phi", dist.Uniform(-1, 1))
    with numpyro.plate("series", 3):
        u = numpyro.sample("u", dist.Normal(0, 2))

    def step(carry, y):
        with numpyro.plate("series", 3):
            x = numpyro.sample("x", dist.Normal(u + phi * (carry - u), tau))
            with handlers.mask(mask=np.array([True, False, True])):
                numpyro.sample("y", dist.Normal(x, s), obs=y)
        return x, None

    scan(step, jnp.zeros(3), y, length=T)


@chain("x", f"1 chain of {T} steps, states of 3", PANEL)
def vector_autoregressive(y=None):
    phi = numpyro.sample("phi", dist.Uniform(-0.3, 0.3).expand([3, 3]).to_event(2))
    factor, s = numpyro.sample("L", dist.LKJCholesky(3)), scale("s")

    def step(carry, y):
        x = numpyro.sample("x", dist.MultivariateNormal(phi @ carry, scale_tril=factor))
        numpyro.sample("y", dist.Normal(x, s).to_event(1), obs=y)
        return x, None

    scan(step, jnp.zeros(3), y, length=T)


@chain("mu drift", f"1 chain of {T} steps, states of 2")
def python_loop(y=None):
    """A site a step: AR(2) around a drift."""
    phi, tau, s = numpyro.sample("phi", dist.Uniform(-1, 1)), scale("tau"), scale("s")
    mu, drift = (numpyro.sample(n, dist.Normal(0, 1)) for n in ("mu", "drift"))
    xs, a, b = [], 0.0, 0.0
    for t in range(T):
        x = numpyro.sample(f"x{t}", dist.Normal(phi * a + 0.2 * b + drift, tau))
        xs, a, b = [*xs, x], x, a
    numpyro.sample("y", dist.Normal(mu + jnp.stack(xs), s), obs=y)


CHAINS["python_loop"] = Chain(
    python_loop, Y, frozenset({"mu", "drift", *(f"x{t}" for t in range(T))}),
    f"1 chain of {T} steps, states of 2",
)  # fmt: skip


@chain("x a", f"{T} states written out in innovations")
def centred_walk(y=None):
    """The mean over time joins all steps."""
    tau, s, a = scale("tau"), scale("s"), numpyro.sample("a", dist.Normal(0, 3))

    def step(carry, _):
        x = numpyro.sample("x", dist.Normal(carry, tau))
        return x, x

    _, xs = scan(step, 0.0, None, length=T)
    numpyro.sample("y", dist.Normal(a + xs - xs.mean(), s), obs=y)


@chain("mu", "dense root of 1")
def stochastic_volatility(y=None):
    """h stays, its mean goes."""
    mu, phi = numpyro.sample("mu", dist.Normal(0, 1)), numpyro.sample("phi", dist.Uniform(-1, 1))
    tau = scale("tau")

    def step(h, y):
        h = numpyro.sample("h", dist.Normal(mu + phi * (h - mu), tau))
        numpyro.sample("y", dist.Normal(0, jnp.exp(h / 2)), obs=y)
        return h, None

    scan(step, mu, y, length=T)


@chain("b phi", "dense root of 2")
def observed_autoregression(y=None):
    b, phi = (numpyro.sample(n, dist.Normal(0, 1)) for n in ("b", "phi"))
    s = scale("s")

    def step(before, y):
        y = numpyro.sample("y", dist.Normal(b + phi * before, s), obs=y)
        return y, None

    scan(step, 0.0, y, length=T)


@chain("x a", f"1 chain of {T} steps, states of 1")
def random_walk(y=None):
    a, tau = numpyro.sample("a", dist.Normal(0, 3)), scale("tau")
    x = numpyro.sample("x", dist.GaussianRandomWalk(tau, T))
    numpyro.sample("y", dist.Normal(a + x, scale("s")), obs=y)


@chain("x", f"3 chains of {T} steps, states of 1", PANEL)
def random_walks_in_a_plate(y=None):
    tau, s = numpyro.sample("tau", dist.HalfNormal(1).expand([3])), scale("s")
    with numpyro.plate("series", 3):
        x = numpyro.sample("x", dist.GaussianRandomWalk(tau, T))
    numpyro.sample("y", dist.Normal(x.T, s).to_event(2), obs=y)


@chain("x", f"1 chain of {T} steps, states of 2")
def state_space(y=None):
    phi, tau = numpyro.sample("phi", dist.Uniform(0, 1)), scale("tau")
    matrix = jnp.array([[1.0, 1.0], [0.0, 1.0]]).at[1, 1].set(phi)
    fn = dist.GaussianStateSpace(
        T, matrix, scale_tril=jnp.diag(jnp.array([0.3, tau])), initial_value=jnp.array([1.0, 0.5])
    )
    x = numpyro.sample("x", fn)
    numpyro.sample("y", dist.Normal(x[:, 0], scale("s")), obs=y)


@chain("x", f"3 chains of {T} steps, states of 2", PANEL)
def state_spaces_in_a_batch(y=None):
    factor = numpyro.sample("L", dist.LKJCholesky(2))
    covariance = factor @ factor.T + 0.1 * jnp.eye(2)
    fn = dist.GaussianStateSpace(T, 0.9 * jnp.eye(2), covariance_matrix=covariance)
    x = numpyro.sample("x", fn.expand([3]))
    numpyro.sample("y", dist.Normal(x[..., 1].T, scale("s")), obs=y)


@chain("a x", f"1 chain of {T} steps, states of 1")
def moved_random_walk(y=None):
    a, tau = numpyro.sample("a", dist.Normal(0, 3)), scale("tau")
    shift = dist.transforms.AffineTransform(a + jnp.linspace(0, 1, T), -tau)
    x = numpyro.sample("x", dist.TransformedDistribution(dist.GaussianRandomWalk(2.0, T), shift))
    numpyro.sample("y", dist.Normal(x, scale("s")), obs=y)


@chain("x", f"1 chain of {T} steps, states of 2")
def recursive_linear_transform(y=None):
    noise = dist.Normal(0.1, numpyro.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1)))
    recursion = dist.transforms.RecursiveLinearTransform(jnp.array([[1.0, 1.0], [0.0, 1.0]]))
    fn = dist.TransformedDistribution(noise.expand([T, 2]).to_event(2), recursion)
    numpyro.sample("y", dist.Normal(numpyro.sample("x", fn)[:, 0], scale("s")), obs=y)


@chain("b", f"1 chain of {T} steps, states of 2")
def dynamic_regression(y=None):
    """Each row reads both coefficients, whose priors do not read each other."""
    tau, s = scale("tau"), scale("s")

    def step(b, now):
        y, x = now
        b = numpyro.sample("b", dist.Normal(b, tau).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(b[0] + b[1] * x, s), obs=y)
        return b, None

    scan(step, jnp.zeros(2), (y, X), length=T)


@chain("level season", f"1 chain of {T} steps, states of 4")
def level_and_season(y=None):
    """Two scans that the rows join; a season reads three steps."""
    t1, t2, s = scale("t1"), scale("t2"), scale("s")

    def drift(before, _):
        level = numpyro.sample("level", dist.Normal(before, t1))
        return level, level

    def turn(before, _):
        season = numpyro.sample("season", dist.Normal(-sum(before), t2))
        return (season, *before[:-1]), season

    _, levels = scan(drift, 0.0, None, length=T)
    _, seasons = scan(turn, (0.0, 0.0, 0.0), None, length=T)
    numpyro.sample("y", dist.Normal(levels + seasons, s), obs=y)


@chain("level common", f"{3 * T} states written out in innovations", PANEL)
def series_with_a_common_mean(y=None):
    """Three walks that one row joins at a time, and a site whose mean reads all of them."""
    tau, s = scale("tau"), scale("s")

    def step(before, _):
        with numpyro.plate("series", 3):
            level = numpyro.sample("level", dist.Normal(before, tau))
        return level, level

    _, levels = scan(step, jnp.zeros(3), None, length=T)
    common = numpyro.sample("common", dist.Normal(levels.mean(), 1.0))
    numpyro.sample("y", dist.Normal(levels + common, s).to_event(2), obs=y)


@chain("a", "dense root of 1")
def observed_random_walk(y=None):
    """The walk is the likelihood, through exp."""
    a = numpyro.sample("a", dist.Normal(0, 1))
    walk = dist.GaussianRandomWalk(scale("tau"), T)
    fn = dist.TransformedDistribution(walk, dist.transforms.ExpTransform())
    numpyro.sample("y", fn, obs=None if y is None else jnp.exp(y))
    numpyro.sample("w", dist.Normal(a, 1.0), obs=None if y is None else y[0])


@chain("z mu", f"1 chain of {T} steps, states of 1")
def cumulative_sum(y=None):
    """A walk in standard noise, with a drift."""
    mu, tau = numpyro.sample("mu", dist.Normal(0, 1)), scale("tau")
    z = numpyro.sample("z", dist.Normal(0, 1).expand([T]))
    x = numpyro.deterministic("x", jnp.cumsum(mu + tau * z))
    numpyro.sample("y", dist.Normal(x, scale("s")), obs=y)


@chain("z w", f"3 chains of {T + 1} steps, states of 2", PANEL)
def cumulative_sums_of_cumulative_sums(y=None):
    """Three local linear trends, backwards in time."""
    tau = numpyro.sample("tau", dist.HalfNormal(1).expand([2]))
    with numpyro.plate("series", 3), numpyro.plate("time", T):
        z, w = (numpyro.sample(n, dist.Normal(0, 1)) for n in ("z", "w"))
    slope = jax.lax.cumsum(tau[0] * z, reverse=True)
    level = jax.lax.cumsum(slope + tau[1] * w, reverse=True)
    numpyro.sample("y", dist.Normal(level, scale("s")), obs=y)


@chain("z", f"dense root of {T}")
def centred_cumulative_sum(y=None):
    """The mean over time joins all steps; sums need no columns of their own in the root."""
    z = numpyro.sample("z", dist.Normal(0, scale("tau")).expand([T]))
    x = jnp.cumsum(z)
    numpyro.sample("y", dist.Normal(x - x.mean(), scale("s")), obs=y)


@chain("a", "dense root of 1")
def kept_noise(y=None):
    """A walk that another site keeps is evaluated as written."""
    a, z = (
        numpyro.sample("a", dist.Normal(0, 1)),
        numpyro.sample("z", dist.Normal(0, 1).expand([T])),
    )
    x = jnp.cumsum(z)
    numpyro.sample("c", dist.Poisson(jnp.exp(x / T)), obs=np.arange(T))
    numpyro.sample("y", dist.Normal(a + x, scale("s")), obs=y)


@chain("z x0", f"1 chain of {T} steps, states of 5")
def noncentred_autoregression(y=None):
    """Autoregressive, with a moving average of the noise."""
    phi, theta = (numpyro.sample(n, dist.Uniform(-1, 1)) for n in ("phi", "theta"))
    tau, s, x0 = scale("tau"), scale("s"), numpyro.sample("x0", dist.Normal(0, 1))

    def step(carry, y):
        x, before = carry
        z = numpyro.sample("z", dist.Normal(0, 1))
        x = phi * x + tau * (z + theta * before)
        numpyro.sample("y", dist.Normal(x, s), obs=y)
        return (x, z), None

    scan(step, (x0, 0.0), y, length=T)


@chain("z", "1 chain of 4 steps, states of 3")
def loop_over_sampled_noise(y=None):
    """The noise is a site of its own, the loop is JAX's, and it starts anew at a known step."""
    phi, tau = numpyro.sample("phi", dist.Uniform(-1, 1)), scale("tau")
    with numpyro.plate("time", T):
        z = numpyro.sample("z", dist.Normal(0, tau))

    def step(x, at):
        z, reset = at
        x = jnp.where(reset, z, phi * x + z)
        return x, x

    _, x = jax.lax.scan(step, 0.0, (z, np.arange(T) == 4))
    numpyro.sample("y", dist.Normal(x, scale("s")), obs=y)


@chain("z", f"dense root of {T}")
def loop_that_always_starts_anew(y=None):
    """A carry that no later step reads is a state without a past."""
    phi, tau = numpyro.sample("phi", dist.Uniform(-1, 1)), scale("tau")
    z = numpyro.sample("z", dist.Normal(0, tau).expand([T]))

    def step(x, at):
        z, reset = at
        x = jnp.where(reset, z, phi * x + z)
        return x, x

    _, x = jax.lax.scan(step, 0.0, (z, np.ones(T, bool)))
    numpyro.sample("y", dist.Normal(x, scale("s")), obs=y)


def ragged(y=None):
    """A second state that begins later: padding on both sides of it, states of two steps."""
    tau, s, phi = scale("tau"), scale("s"), numpyro.sample("phi", dist.Uniform(-1, 1))
    x, before, w, means = 0.0, 0.0, 0.0, []
    for t in range(T):
        new = numpyro.sample(f"x{t}", dist.Normal(phi * x - 0.3 * before + 0.5 * w, tau))
        x, before = new, x
        if 4 <= t < 8:
            w = numpyro.sample(f"w{t}", dist.Normal(w + 0.1 * before, 1.0))
        means.append(x)
    numpyro.sample("y", dist.Normal(jnp.stack(means), s), obs=y)


CHAINS["ragged"] = Chain(
    ragged, Y, frozenset({*(f"x{t}" for t in range(T)), *(f"w{t}" for t in range(4, 8))}),
    f"1 chain of {T - 1} steps, states of 4",
)  # fmt: skip
