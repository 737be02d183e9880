"""Models whose likelihood is not Gaussian: published mixed models, and simulated ones.

Each is written as a user would write it: effects centred, in plates. Coefficients of standardised
columns are N(0, 2.5), standard deviations of effects are half-normal with scale 1.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from numpyro.contrib.control_flow import scan

from examples.data import load

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Generalised:
    """A generalised linear mixed model with intercepts of each factor.

    Attributes:
        data: the data set.
        response: (predictor, columns) → the distribution of the data, and these.
        design: columns → those of the fixed effects, without the intercept.
        factors: columns whose levels have effects, or functions of the columns.
        offset: columns → what is added to the predictor.
    """

    data: str
    response: Callable[[Any, Columns], tuple[dist.Distribution, np.ndarray]]
    design: Callable[[Columns], Sequence[np.ndarray]]
    factors: Sequence[str]
    offset: Callable[[Columns], np.ndarray] | None = None

    def arguments(self) -> tuple[Columns]:
        """The columns; 'row' numbers them.

        Raises:
            MissingData: the data set is absent.
        """
        columns = load(self.data)
        return ({**columns, "row": np.arange(len(next(iter(columns.values()))))},)

    def __call__(self, columns: Columns) -> None:
        """The model."""
        x = np.stack([_standardised(each) for each in self.design(columns)], axis=1)
        a = numpyro.sample("a", dist.Normal(0.0, 2.5))
        b = numpyro.sample("b", dist.Normal(0.0, 2.5).expand([x.shape[1]]).to_event(1))
        predictor = a + x @ b + (self.offset(columns) if self.offset else 0.0)
        for name in self.factors:
            code = np.asarray(columns[name])
            sd = numpyro.sample(f"sd_{name}", dist.HalfNormal(1.5))
            with numpyro.plate(f"{name}s", int(code.max()) + 1):
                effect = numpyro.sample(name, dist.Normal(0.0, sd))
            predictor += effect[code]
        fn, y = self.response(predictor, columns)
        numpyro.sample("y", fn, obs=y)


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std()


def _dummies(x: np.ndarray) -> list[np.ndarray]:
    return [1.0 * (x == level) for level in np.unique(x)[1:]]


def _bernoulli(name: str) -> Callable[[Any, Columns], tuple[dist.Distribution, np.ndarray]]:
    return lambda s, d: (dist.Bernoulli(logits=s), d[name])


def _poisson(name: str) -> Callable[[Any, Columns], tuple[dist.Distribution, np.ndarray]]:
    return lambda s, d: (dist.Poisson(jnp.exp(s)), d[name])


def _contraception(d: Columns) -> list[np.ndarray]:
    return [d["age"], d["age"] ** 2, d["urban"], *_dummies(d["livch"])]


def _epil(d: Columns) -> list[np.ndarray]:
    treated, base = d["progabide"], d["lbase"]
    return [treated, base, d["lage"], d["v4"], treated * base]


def _ticks(d: Columns) -> list[np.ndarray]:
    return [*_dummies(d["year"]), d["cheight"]]


def _verbagg(d: Columns) -> list[np.ndarray]:
    return [d["anger"], d["male"], *_dummies(d["btype"]), d["self"]]


GENERALISED = {
    "cbpp": Generalised(
        "cbpp",
        lambda s, d: (dist.Binomial(d["size"], logits=s), d["incidence"]),
        lambda d: _dummies(d["period"]),
        ("herd",),
    ),
    "contraception": Generalised(
        "contraception", _bernoulli("use"), _contraception, ("dist_urban",)
    ),
    "contraception, probit": Generalised(
        "contraception",
        lambda s, d: (dist.Bernoulli(probs=jnp.clip(ndtr(s), 1e-12, 1 - 1e-12)), d["use"]),
        _contraception,
        ("dist_urban",),
    ),
    "bacteria": Generalised(
        "bacteria", _bernoulli("y"), lambda d: [*_dummies(d["trt"]), d["wk2"]], ("id",)
    ),
    "ohio": Generalised(
        "ohio", _bernoulli("resp"), lambda d: [d["age"], d["smoke"], d["age"] * d["smoke"]], ("id",)
    ),
    "epil": Generalised("epil", _poisson("y"), _epil, ("subject",)),
    "epil, rows": Generalised("epil", _poisson("y"), _epil, ("subject", "row")),
    "mmmec": Generalised(
        "mmmec", _poisson("deaths"), lambda d: [d["uvb"]], ("region",),
        lambda d: np.log(d["expected"]),
    ),
    "mmmec, nested": Generalised(
        "mmmec", _poisson("deaths"), lambda d: [d["uvb"]], ("region", "nation"),
        lambda d: np.log(d["expected"]),
    ),
    "grouseticks": Generalised(
        "grouseticks", _poisson("ticks"), _ticks, ("brood", "index", "location")
    ),
    "verbagg": Generalised("verbagg", _bernoulli("r2"), _verbagg, ("person", "item")),
}  # fmt: skip


def item_response(columns: Columns) -> None:
    """Two parameters for each item: difficulty, and how well it tells persons apart."""
    person, item = columns["person"], columns["item"]
    spread = numpyro.sample("spread", dist.HalfNormal(1.5))
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.5))
    with numpyro.plate("items", int(item.max()) + 1):
        difficulty = numpyro.sample("difficulty", dist.Normal(mean, spread))
        discrimination = numpyro.sample("discrimination", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("persons", int(person.max()) + 1):
        ability = numpyro.sample("ability", dist.Normal(0.0, 1.0))
    logits = discrimination[item] * (ability[person] - difficulty[item])
    numpyro.sample("y", dist.Bernoulli(logits=logits), obs=columns["r2"])


def stochastic_volatility(y: np.ndarray) -> None:
    """Log-variances of daily returns are an autoregression (Kim, Shephard & Chib 1998)."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    phi = numpyro.sample("phi", dist.Beta(20.0, 1.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    first = numpyro.sample("first", dist.Normal(0.0, sigma / jnp.sqrt(1 - phi**2)))

    def step(h: Any, y: Any) -> tuple[Any, None]:
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.5 * (mean + h))), obs=y)
        return numpyro.sample("h", dist.Normal(phi * h, sigma)), None

    scan(step, first, y)


def salamanders(female: np.ndarray, male: np.ndarray, x: np.ndarray, mated: np.ndarray) -> None:
    """Crossed effects of both animals on a mating (Karim & Zeger 1992)."""
    b = numpyro.sample("b", dist.Normal(0.0, 2.5).expand([x.shape[1]]).to_event(1))
    predictor = x @ b
    for name, code in (("female", female), ("male", male)):
        sd = numpyro.sample(f"sd_{name}", dist.HalfNormal(1.5))
        with numpyro.plate(f"{name}s", 60):
            predictor += numpyro.sample(name, dist.Normal(0.0, sd))[code]
    numpyro.sample("mated", dist.Bernoulli(logits=predictor), obs=mated)


def returns(rng: np.random.Generator, days: int = 2500) -> tuple[np.ndarray]:
    """Daily returns of simulated volatility: φ = 0.97, σ = 0.2, mean -9."""
    h = np.zeros(days)
    h[0] = rng.normal() * 0.2 / np.sqrt(1 - 0.97**2)
    for t in range(1, days):
        h[t] = 0.97 * h[t - 1] + 0.2 * rng.normal()
    return (np.exp(0.5 * (h - 9.0)) * rng.normal(size=days),)


def matings(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Six matings of each of 60 females and 60 males, in three groups, of two populations each."""
    female = np.repeat(np.arange(60), 6)
    turn = np.tile(np.arange(6), 60)
    group, place = female // 20, female % 20
    male = 20 * group + (place + 1 + 3 * turn) % 20
    white = [1.0 * (each % 20 >= 10) for each in (female, male)]
    x = np.stack([np.ones(360), *white, white[0] * white[1]], axis=1)
    effects = 1.1 * rng.normal(size=60)[female] + 1.0 * rng.normal(size=60)[male]
    logits = x @ np.array([1.0, -2.9, -0.7, 3.6]) + effects
    return female, male, x, rng.binomial(1, 1 / (1 + np.exp(-logits)))


def _simulated(make: Callable[[np.random.Generator], tuple[np.ndarray, ...]]) -> Any:
    return lambda: make(np.random.default_rng(0))


MODELS: dict[str, tuple[Callable[..., None], Callable[[], tuple[Any, ...]]]] = {
    **{name: (each, each.arguments) for name, each in GENERALISED.items()},
    "item response": (item_response, GENERALISED["verbagg"].arguments),
    "stochastic volatility": (stochastic_volatility, _simulated(returns)),
    "salamanders": (salamanders, _simulated(matings)),
}
"""Model and what gives its arguments, by name."""
