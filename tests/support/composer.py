"""Random NumPyro models as source text, put together from pieces of applied work.

The second generator of the slow lane, which shares no code with ``generator/``: that one draws
expression trees over one data set, this one picks pieces as people write them (a prior, how effects
reach the rows, noise, a likelihood, a handler), with sizes, data and dtypes of its own. It promises
nothing about what can be integrated out; whatever is must leave the density as it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam

POSITIVE = (
    "HalfNormal(1.0)", "Exponential(1.5)", "Gamma(2.0, 2.0)", "HalfCauchy(1.0)", "LogNormal(0, 1)",
    "InverseGamma(3.0, 2.0)", "Uniform(0.3, 2.0)", "TruncatedNormal(0.5, 1.0, low=0.0)",
)  # fmt: skip
REAL = ("Laplace(0.0, 1.0)", "StudentT(4.0, 0.0, 1.0)", "Logistic(0.0, 1.0)", "Uniform(-1.0, 1.0)")
# Vectors [k] of effects with a mean m and a scale s.
VECTORS = (
    "dist.Normal({m}, {s}).expand([{k}]).to_event(1)",
    "dist.Normal({m}, {s}).expand([{k}])",
    "dist.Normal({m} + jnp.zeros({k}), {s})",
    "dist.Normal(0.0, 1.0).expand([{k}]).mask(True)",
    "dist.MultivariateNormal({m} * jnp.ones({k}), {s} ** 2 * (jnp.eye({k}) + 0.3))",
    "dist.MultivariateNormal({m} * jnp.ones({k}), scale_tril={s} * {tril})",
    "dist.MultivariateNormal(jnp.zeros({k}), precision_matrix={tril} @ {tril}.T / {s})",
    "dist.LowRankMultivariateNormal({m} * jnp.ones({k}), jnp.ones(({k}, 1)), {s} * jnp.ones({k}))",
    "dist.GaussianRandomWalk({s}, {k})",
    "dist.ZeroSumNormal({s}, ({k} + 1,))[:{k}]",
    "dist.TransformedDistribution(dist.Normal(jnp.zeros({k}), 1.0), AffineTransform({m}, {s}))",
    "dist.Laplace({m}, 1.0).expand([{k}]).to_event(1)",
    "dist.Normal({m} + {a} * {x}, {s})",
)
# Matrices [g, k] of effects with a scale s, some by way of a correlation factor L and scales t.
MATRICES = (
    "dist.Normal(0.0, {s}).expand([{g}, {k}]).to_event(2)",
    "dist.MultivariateNormal(jnp.zeros({k}), {s} ** 2 * (jnp.eye({k}) + 0.3)).expand([{g}])",
    "dist.MultivariateNormal({u}, scale_tril={s} * {tril}).expand([{g}])",
    "dist.MultivariateNormal(jnp.zeros({k}), scale_tril={t}[:, None] * {L}).expand([{g}])",
    "dist.MatrixNormal(jnp.zeros(({g}, {k})), {s} * jnp.eye({g}), {tril})",
)
# Expressions [n] that latents enter: v effects of the rows, u effects [k], V effects [g, k], a a
# Gaussian number, b a sampled one, i an index into k, h into g, j into n, x and X known, e a term.
TERMS = (
    "{a}", "{v}", "{u}[{i}]", "{u}[{i}]", "{X} @ {u}", "{a} * {x}",
    "jnp.einsum('nk,k->n', {X}, {u})",
    "({X} * {V}[{h}]).sum(-1)", "{V}[{h}, {i}]", "jax.nn.one_hot(np.abs({i}), {k}) @ {u}",
    "{b} * ({e})", "jnp.where({seen}, {e}, {e})", "jnp.zeros({n}).at[{j}].set({a})",
    "jnp.zeros({n}).at[{j}].add({e})", "jnp.cumsum({s} * {v})", "jnp.cumsum({v}[::-1])",
    "jnp.concatenate([{u}, {v}])[:{n}]", "{x}", "{b} + {x}", "jnp.exp({b}) * ({e})",
    "jnp.tanh({e})", "jax.vmap(lambda z, x: 2 * z + x)({v}, {x} + 0.0)",
    "jnp.take({u}, {i}, mode='wrap')",
    "jnp.pad({v}, (1, 0))[:{n}]", "({u} - jnp.mean({u}))[{i}]", "{u}[{i}] + {w}[{h}]",
    "jnp.cos({b} * {x}[:, None] * np.arange(1, {k} + 1)) @ {u}", "np.zeros(({n}, 0)) @ {empty}",
    "jax.lax.cond({yes}, lambda z: 2.0 * z, lambda z: z - 1.0, {v})", "{walk}", "{steps}",
    "jax.ops.segment_sum({v}, {j}, {n})", "jax.lax.fori_loop(0, 2, lambda t, z: 0.5 * z, {v})",
)  # fmt: skip
NOISE = ("{s}", "{s}", "0.7", "{p}[{i}]", "{s} * (0.5 + jnp.abs({x}))", "jnp.exp(0.3 * {b})")
# Likelihoods of rows with mean m and noise d; y are real data, counts and bits.
LIKELIHOODS = (
    *["dist.Normal({m}, {d}), obs={y}"] * 5,
    "dist.Normal({m}, {d}).to_event(1), obs={y}",
    "dist.Normal({m}, {d}).mask({seen}), obs={y}",
    "dist.Normal({m}, {d}), obs={y}, obs_mask={seen}",
    "dist.LogNormal({m}, {d}), obs=jnp.exp({y})",
    "dist.TransformedDistribution(dist.Normal({m}, {d}), AffineTransform(0.5, 2.0)), obs={y}",
    "dist.Normal(({m})[:, None], {s}), obs={y}[:, None]",
    "dist.Normal(({m})[:, None] + np.zeros(2), {s}), obs=jnp.stack([{y}, {y}], 1)",
    "dist.MultivariateNormal({m}, {s} ** 2 * (jnp.eye({n}) + 0.2)), obs={y}",
    "dist.MultivariateNormal(jnp.stack([{m}, {v}], 1), {s} * jnp.eye(2)), obs=np.eye({n}, 2)",
    "dist.StudentT(4.0, {m}, {d}), obs={y}",
    "dist.Poisson(jnp.exp(0.1 * ({m}))), obs={count}",
    "dist.Bernoulli(logits={m}), obs={bit}",
    "dist.Poisson({gamma}[{i}] * (0.5 + jnp.abs({x}))), obs={count}",
    "dist.Exponential(2.0 * {gamma}[{i}]), obs=jnp.abs({y}) + 0.1",
    "dist.Normal({m}, 1 / jnp.sqrt({gamma}[{i}])), obs={y}",
    "dist.Bernoulli(probs={beta}[{i}]), obs={bit}",
    "dist.Geometric(1 - {beta}[{i}]), obs={count}",
    "dist.Categorical(probs={dirichlet}[{i}]), obs={bit}",
)
# Likelihoods that are not Gaussian in their predictors, with probabilities p of the rows.
NONGAUSSIAN = (
    "dist.StudentT(4.0, {m}, {d}), obs={y}",
    "dist.Poisson(jnp.exp(0.3 * ({m}))), obs={count}",
    "dist.Poisson({s} * jnp.exp({m} - 1.0)), obs={count}",
    "dist.Bernoulli(logits={m}), obs={bit}",
    "dist.Bernoulli(probs=jax.scipy.stats.norm.cdf({m})), obs={bit}",
    "dist.Bernoulli(probs=1 - jnp.exp(-jnp.exp(0.3 * ({m})))), obs={bit}",
    "dist.Bernoulli(logits={m}).mask({seen}), obs={bit}",
    "dist.Binomial(7, logits={m}), obs={count}",
    "dist.NegativeBinomial2(jnp.exp(0.3 * ({m})), {s}), obs={count}",
    "dist.Gamma({s}, {s} / jnp.exp(0.3 * ({m}))), obs=jnp.abs({y}) + 0.1",
    "dist.BetaProportion(0.01 + 0.98 * jax.nn.sigmoid({m}), {s}), obs=jax.nn.sigmoid(0.5 * ({y}))",
    "dist.Weibull(jnp.exp(0.3 * ({m})), {s}), obs=jnp.abs({y}) + 0.1",
    "dist.OrderedLogistic({m}, jnp.array([-1.0, 0.2])), obs={bit}",
    "dist.ZeroInflatedPoisson(gate=jax.nn.sigmoid({m}), rate=jnp.exp(0.3 * ({m}))), obs={count}",
    "dist.Categorical(logits=jnp.stack([jnp.zeros({n}), {m}, {m}], 1)), obs={bit}",
    "dist.Normal(jnp.exp(0.3 * ({m})), {s}), obs={y}",
    "dist.Normal(jnp.tanh({m}), {d}).mask({seen}), obs={y}",
    "dist.LogNormal(jnp.sin({m}), {s}), obs=jnp.abs({y}) + 0.1",
    "dist.Laplace({m}, {s}), obs={y}",
    "dist.Cauchy({m}, {s}), obs={y}",
    "dist.Exponential(jnp.exp(0.3 * ({m}))), obs=jnp.abs({y}) + 0.1",
    "dist.Geometric(logits={m}), obs={count}",
)
AROUND = (
    *["{site}"] * 8,
    "with numpyro.plate('rows', {n}, dim=-1): {site}",
    "with numpyro.handlers.mask(mask={seen}): {site}",
    "with numpyro.handlers.scale(scale=2.0): {site}",
)


@dataclass
class Composer:
    """Writes one model: ``lines`` is its body, ``data`` the arrays that it reads."""

    seed: int
    likelihoods: tuple[str, ...] = LIKELIHOODS
    lines: list[str] = field(default_factory=list)
    data: dict[str, np.ndarray] = field(default_factory=dict)
    depth: int = 0

    def __post_init__(self) -> None:
        self.random, self.numpy = random.Random(self.seed), np.random.default_rng(self.seed)
        self.n = self.random.choice([1, 4, 6, 9, 12])
        self.effects: list[tuple[str, int]] = []

    def write(self, template: str, **given: Any) -> str:
        """A template filled with pieces, those of one call sharing sizes; earlier lines first."""
        sizes = {"n": self.n, "k": self.size(), "g": self.size(), **given}
        return template.format_map(_Pieces(lambda name: self.piece(name, sizes), sizes))

    def size(self) -> int:
        return self.random.choice([1, 1, 2, 3, 3, 4, 5, 7, 8])

    def name(self, stem: str) -> str:
        return f"{stem}{len(self.lines)}_{len(self.data)}"

    def known(self, array: Any) -> str:
        """An array by name, of NumPy or JAX, sometimes of another dtype."""
        name, array = self.name("d"), np.asarray(array)
        if array.dtype.kind == "f" and array.ndim and self.random.random() < 0.15:
            array = np.round(2 * array).astype(self.random.choice([np.int32, np.float32]))
        self.data[name] = array
        return f"jnp.asarray({name})" if self.random.random() < 0.2 else name

    def index(self, groups: int, rows: int) -> str:
        name, found = self.name("i"), self.numpy.integers(0, groups, rows)
        style = self.random.choice(["plain", "sorted", "few"])
        found = np.sort(found) if style == "sorted" else found // 2 if style == "few" else found
        self.data[name] = found.astype(self.random.choice([np.int32, np.int64]))
        return name

    def sample(self, stem: str, distribution: str) -> str:
        """A latent site by name; a suffix in brackets reads some of it."""
        distribution, _, rest = distribution.partition(")[")
        name, closed = self.name(stem), ")" if rest else ""
        self.lines.append(f'{name} = numpyro.sample("{name}", {distribution}{closed})')
        return f"{name}[{rest}" if rest else name

    def piece(self, name: str, sizes: dict[str, Any]) -> str:
        """Whatever a hole of that name in a template stands for."""
        draw, pick, n, k, g = self.numpy, self.random.choice, *(sizes[key] for key in "nkg")
        makers: dict[str, Callable[[], str]] = {
            "x": lambda: self.known(draw.normal(size=sizes.get("rows", n))),
            "X": lambda: self.known(draw.normal(size=(n, k))),
            "y": lambda: self.known(draw.normal(size=n)),
            "count": lambda: self.known(draw.poisson(1.5, n)),
            "bit": lambda: self.known(draw.integers(0, 2, n)),
            "seen": lambda: self.known(draw.random(n) < 0.7),
            "yes": lambda: pick(["True", "False"]),
            "i": lambda: self.index(k, n),
            "h": lambda: self.index(g, n),
            "j": lambda: self.index(n, n),
            "tril": lambda: f"(jnp.eye({k}) + 0.2 * jnp.tri({k}, k=-1))",
            "s": self.scale,
            "p": lambda: self.sample("s", f"dist.HalfNormal(1.0).expand([{k}])"),
            "t": lambda: self.sample("s", f"dist.HalfNormal(1.0).expand([{k}]).to_event(1)"),
            "L": lambda: self.sample("L", f"dist.LKJCholesky({k}, 2.0)"),
            "b": lambda: self.sample("b", f"dist.{pick(REAL)}"),
            "a": lambda: self.sample("a", pick(["dist.Normal(0, 1)", "dist.Normal(1.0, 2.0)"])),
            "gamma": lambda: self.conjugate("Gamma(2.0, {s})", k),
            "beta": lambda: self.conjugate("Beta(1.0, {s})", k),
            "dirichlet": lambda: self.conjugate("Dirichlet(jnp.ones(3) + {s})", k),
            "empty": lambda: self.sample("u", "dist.Normal(0, 1).expand([0]).to_event(1)"),
            "m": lambda: " + ".join(f"({self.term()})" for _ in range(pick([1, 2, 2, 3]))),
            "d": lambda: self.write(pick(NOISE), k=k),
            "e": self.term,
            "u": lambda: self.vector(k),
            "w": lambda: self.vector(g),
            "v": lambda: self.vector(n),
            "V": lambda: self.matrix(g, k),
            "walk": self.walk,
            "steps": self.steps,
        }  # fmt: skip
        return makers[name]()

    def scale(self) -> str:
        if self.random.random() < 0.25:
            return self.random.choice(["0.5", "1.0", "2"])
        name = self.sample("s", f"dist.{self.random.choice(POSITIVE)}")
        return self.random.choice([name, name, f"jnp.sqrt({name})", f"(0.1 + {name})"])

    def conjugate(self, prior: str, k: int) -> str:
        return self.sample("q", f"dist.{prior.format(s=f'(0.5 + {self.scale()})')}.expand([{k}])")

    def mean(self) -> str:
        kind = self.random.choice(["0.0", "0", "{a}", "2 * {a}", "{b}"])
        return self.write(kind)

    def vector(self, k: int) -> str:
        """Effects [k]: a site of its own, one that was there before, or standard noise, scaled."""
        style, old = self.random.random(), [u for u, size in self.effects if size == k]
        if style < 0.1 and old:
            return self.random.choice(old)
        if style < 0.2:
            noise = self.sample("z", f"dist.Normal(0, 1).expand([{k}])")
            return f"({self.mean()} + {self.scale()} * {noise})"
        text = self.write(self.random.choice(VECTORS), k=k, rows=k, m=self.mean())
        if style < 0.3 and text.startswith("dist.Normal(") and ".mask" not in text:
            name = self.name("u")
            self.lines.append(
                f'with numpyro.handlers.reparam(config={{"{name}": LocScaleReparam(0)}}):'
            )
            self.lines.append(f'    {name} = numpyro.sample("{name}", {text})')
        else:
            name = self.sample("u", text)
        if style > 0.9:
            self.lines.append(f'numpyro.deterministic("{self.name("twice")}", 2 * {name})')
        self.effects.append((name, k))
        return name

    def matrix(self, g: int, k: int) -> str:
        text = self.random.choice(MATRICES)
        if "{L}" in text and k == 1:
            text = MATRICES[0]
        return self.sample("V", self.write(text, g=g, k=k))

    def term(self) -> str:
        """An expression [n]; one inside another is an effect of groups."""
        self.depth += 1
        text = self.random.choice(TERMS if self.depth < 3 else TERMS[:8])
        found = self.write(text)
        self.depth -= 1
        return f"jnp.broadcast_to({found}, ({self.n},))"

    def walk(self) -> str:
        """An autoregression in NumPyro's scan."""
        name, rho, scale = self.name("x"), self.write("jnp.tanh({b})"), self.scale()
        self.lines += [
            f"def step{name}(before, t):",
            f'    now = numpyro.sample("{name}", dist.Normal({rho} * before + 0.1 * t, {scale}))',
            "    return now, now",
            f"_, {name} = scan(step{name}, jnp.zeros(()), jnp.arange({self.n}) * 1.0)",
        ]
        return name

    def steps(self) -> str:
        """A walk, a site a step."""
        name, scale, length = self.name("x"), self.scale(), min(self.n, 4)
        self.lines += [
            f'{name} = [numpyro.sample("{name}_0", dist.Normal(0.0, 1.0))]',
            f"for t in range(1, {length}):",
            f'    now = dist.Normal(0.8 * {name}[-1], {scale})',
            f'    {name}.append(numpyro.sample(f"{name}_{{t}}", now))',
        ]  # fmt: skip
        return f"jnp.stack({name})[{self.index(length, self.n)}]"

    def text(self) -> str:
        """``def model():`` as source text."""
        for name in self.random.choice([("y",), ("y",), ("y", "z")]):
            site = self.write(f'numpyro.sample("{name}", {self.random.choice(self.likelihoods)})')
            around = self.random.choice(AROUND)
            self.lines.append(
                self.write(around if "jnp.stack" not in site else "{site}", site=site)
            )
        return "def model():\n" + "\n".join(f"    {line}" for line in self.lines)


class _Pieces(dict[str, Any]):
    """Holes of a template: sizes as they are, and pieces, made when first asked for."""

    def __init__(self, make: Callable[[str], str], sizes: dict[str, Any]) -> None:
        super().__init__(sizes)
        self.make = make

    def __missing__(self, name: str) -> str:
        self[name] = self.make(name)
        return self[name]


def composed(
    seed: int, likelihoods: tuple[str, ...] = LIKELIHOODS
) -> tuple[str, Callable[[], None]]:
    """The text of a random model, and the model."""
    composer = Composer(seed, likelihoods)
    text = composer.text()
    scope = {
        "jax": jax, "jnp": jnp, "np": np, "numpyro": numpyro, "dist": dist, "scan": scan,
        "LocScaleReparam": LocScaleReparam, "AffineTransform": dist.transforms.AffineTransform,
        **composer.data,
    }  # fmt: skip
    exec(compile(text, f"<composed {seed}>", "exec"), scope)
    return text, scope["model"]
