"""Hypothesis strategies for programs: expressions are drawn top down, latents where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.generator.constructs import COVARIANCE, EVERYWHERE, NONLINEAR, POSITIVE, RULES, Shape
from tests.generator.program import Program, Site, Term

_LATENTS = 6  # Gaussian latents after which an expression ends in known arrays or in old ones


@st.composite
def programs(draw: Any) -> Program:
    """Programs with one or two observed sites."""
    build = _Builder(draw)
    ends = [build.observed("y")]
    extra = draw(st.sampled_from(["", "", "second", "childless", "deterministic"]))
    if extra == "second":
        ends.append(build.observed("z"))
    elif extra == "childless":
        ends.append(build.gaussian(build.pick([(4,), ()]), level=1))
    elif extra == "deterministic":
        value = Term("{0} + 1.0", (build.expression(build.pick([(12,), (4,)]), 1, 0),))
        ends.append(Site("effect", value, kind="deterministic"))
    return Program(tuple(ends))


class _Builder:
    """Draws the parts of one program, and keeps what later parts may read again."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.gaussians: list[tuple[Shape, Site]] = []
        self.positives: list[tuple[Shape, Site]] = []
        self.products = 1
        self.nonlinear = 1
        self.count = 0
        self.latents = 0

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    # Expressions

    def expression(self, shape: Shape, depth: int, level: int) -> Term | Site:
        """An affine expression of that shape; ``level`` levels of latents may stand above it."""
        rules = (*RULES.get(shape, ()), *EVERYWHERE) if depth else ()
        special = ["leaf"]
        if depth and self.products and shape and self.room(2):
            special.append("product")
        if depth and self.nonlinear:
            special.append("nonlinear")
        rule = self.pick([*special, *rules, *rules[: len(special)]]) if rules else "leaf"
        if rule == "leaf":
            return self.leaf(shape, level)
        if rule == "product":
            self.products -= 1
            pair = [self.gaussian(s, 0, shared=False) for s in ((), shape)]
            return Term("{0} * {1}", tuple(pair), product=True)
        if rule == "nonlinear":
            self.nonlinear -= 1
            text = self.pick(NONLINEAR if len(shape) == 1 else NONLINEAR[:-1])
            return Term(text, (self.leaf(shape, level),), linear=())
        operands = [self.operand(o, shape, depth - 1, level) for o in rule.operands]
        kept = [i for i, o in enumerate(rule.operands) if isinstance(o, str) and o != "="]
        linear = tuple(i for i in range(len(operands)) if i not in kept)
        return Term(rule.template, tuple(operands), linear)

    def operand(self, kind: Shape | str, shape: Shape, depth: int, level: int) -> Term | Site:
        if kind == "=":
            return self.expression(shape, depth, level)
        if isinstance(kind, str):
            return self.positive((int(kind[1:]),) if kind[1:] else ())
        return self.expression(kind, depth, level)

    def room(self, latents: int = 1) -> bool:
        return self.latents + latents <= _LATENTS

    def leaf(self, shape: Shape, level: int, tame: bool = False) -> Term | Site:
        """A Gaussian latent, new or old, or a known array.

        ``tame``: of known scale, since it is exponentiated: tails of tails test only rounding.
        """
        old = [site for s, site in self.gaussians if s == shape and not tame]
        options = ["new"] * self.room() + ["old"] * bool(old)
        what = self.pick([*options, "known"] if not self.room() or old else [*options])
        if what == "new":
            return self.gaussian(shape, level, tame=tame)
        return self.pick(old) if what == "old" else known(shape)

    # Latents

    def gaussian(self, shape: Shape, level: int, shared: bool = True, tame: bool = False) -> Site:
        """A latent with a Gaussian prior, whose mean may read others."""
        self.latents += 1
        correlated = not tame and bool(shape) and shape[-1] > 1 and self.pick([False, False, True])
        event = 1 if correlated else 0
        loc, scalar = self.loc(shape, level, event)
        if correlated:
            value = self.correlated(loc, shape[-1])
        else:
            scale, scalar_scale = (Term("0.5"), True) if tame else self.scale(shape)
            scalar = scalar and scalar_scale
            text = self.pick(["dist.Normal({0}, {1})"] * 4 + [_AFFINE] * (not tame))
            value = Term(text, (loc, scale), linear=(0,))
        value, plates, arguments = self.spelling(value, shape, event, scalar)
        name = self.name("u")
        site = Site(name, value, name, plates, arguments)
        self.gaussians.append((shape if shared else (-1,), site))
        return site

    def loc(self, shape: Shape, level: int, event: int) -> tuple[Term | Site, bool]:
        """A prior mean that broadcasts to ``shape``, and whether it has no batch dimensions."""
        shapes = [shape[len(shape) - event :], shape]
        if len(shape) == 2 and not event:
            shapes += [(shape[0], 1), shape[1:]]
        mean = self.pick(shapes)
        above = level and self.room() and self.pick([False, True])
        loc = self.expression(mean, 1, level - 1) if above else known(mean)
        return loc, len(mean) <= event

    def scale(self, shape: Shape) -> tuple[Term | Site, bool]:
        """A prior scale that broadcasts to ``shape``, and whether it is a scalar."""
        kind = self.pick(["1.0", "known", "latent", "latents", "horseshoe", "function", "gaussian"])
        if kind == "1.0":
            return Term("1.0"), True
        if kind == "known":
            return Term("0.5 + {0} ** 2", (known(shape),)), not shape
        if kind == "horseshoe":
            return Term("{0} * {1}", (self.positive(()), self.positive(shape))), not shape
        if kind == "function":
            return Term("jnp.sqrt({0} ** 2 + 0.1)", (self.positive(()),)), True
        if kind == "gaussian" and self.room():
            return Term("jnp.exp(0.5 * {0})", (self.leaf((), 1, tame=True),), linear=()), True
        if kind == "latents":
            return self.positive(shape), not shape
        return self.positive(()), True

    def correlated(self, loc: Term | Site, d: int) -> Term:
        text = self.pick(list(COVARIANCE))
        reads, operands = COVARIANCE[text], [loc]
        holes = {"d": str(d)}
        for i, letter in enumerate(reads, start=1):
            holes[letter] = f"{{{i}}}"
            shape = (d,) if letter == "v" else ()
            operands.append(self.cholesky(d) if letter == "L" else self.positive(shape))
        text = f"dist.MultivariateNormal({{0}}, {text.format(**holes)})"
        return Term(text, tuple(operands), linear=(0,))

    def cholesky(self, d: int) -> Site:
        return Site(self.name("L"), Term(f"dist.LKJCholesky({d})"))

    def positive(self, shape: Shape) -> Site:
        """A positive latent of that shape, new or old."""
        old = [site for s, site in self.positives if s == shape]
        if old and (len(self.positives) > 3 or self.pick([True, False])):
            return self.pick(old)
        above = self.room() and self.pick([False] * 4 + [True])
        if above:
            value = Term("dist.LogNormal({0}, 0.4)", (self.leaf((), 0, tame=True),))
        else:
            value = Term(self.pick(POSITIVE))
        value, plates, arguments = self.spelling(value, shape, 0, scalar=True)
        site = Site(self.name("s"), value, None, plates, arguments)
        self.positives.append((shape, site))
        return site

    def spelling(
        self, value: Term, shape: Shape, event: int, scalar: bool
    ) -> tuple[Term, tuple[tuple[int, int], ...], str]:
        """Ways to give a site its shape: plates, expand, to_event, sample_shape."""
        batch = shape[: len(shape) - event]
        if not batch:
            return value, (), ""
        ways = ["expand", "plates", "to_event"] + ["sample_shape"] * scalar
        way = self.pick(ways + ["outer plate"] * (len(batch) > 1))
        if way == "sample_shape":
            return value, (), f", sample_shape={batch}"
        spread = Term(f"{{0}}.expand({list(batch)})", (value,))
        if way == "expand":
            return spread, (), ""
        if way == "to_event":
            return Term(f"{{0}}.to_event({len(batch)})", (spread,)), (), ""
        if way == "outer plate":
            return Term(f"{{0}}.to_event({len(batch) - 1})", (spread,)), ((batch[0], -1),), ""
        return value, plates_of(batch), ""

    # Observed sites

    def observed(self, name: str) -> Site:
        shape = self.pick([(12,), (12,), (4, 3), (3, 2, 2)])
        depth = self.pick([1, 2, 3])
        mean = self.expression(shape, depth, self.pick([0, 1, 2]))
        data = "Y" if name == "y" else "Y[::-1]"
        data = data if len(shape) == 1 else f"{data}.reshape{shape}"
        families = ["Normal"] * 4 + ["LogNormal", "sigmoid", "StudentT"] + ["multivariate"]
        family = self.pick(families if len(shape) < 3 else families[:-1])
        handler, plates = "", ()
        if family == "multivariate":
            value = self.correlated(Term(f"{{0}} + jnp.zeros({shape})", (mean,)), shape[-1])
            batch = shape[:-1]
        else:
            text, data = _OBSERVED[family][0], _OBSERVED[family][1].format(data)
            linear = () if family == "StudentT" else (0,)
            value = Term(text, (mean, self.noise(shape)), linear=linear)
            batch = shape
            mask = self.pick(["", "", "handler", "method"])
            reshaped = "seen" if len(shape) == 1 else f"seen.reshape{shape}"
            if mask == "handler":
                handler = f"numpyro.handlers.mask(mask={reshaped})"
            elif mask == "method":
                value = Term(f"{{0}}.mask({reshaped})", (value,))
        if self.pick([False, True]):
            plates = plates_of(batch)
        return Site(name, value, None, plates, f", obs={data}", handler)

    def noise(self, shape: Shape) -> Term | Site:
        """A noise scale that broadcasts to the rows."""
        kinds = ["latent", "known", "rows", "function", "distributional"]
        kind = self.pick(kinds + ["groups"] * (shape == (12,)))
        if kind == "known":
            return Term("0.7")
        if kind == "rows":
            return Term("noise" if len(shape) == 1 else f"noise.reshape{shape}")
        if kind == "groups":
            return Term("{0}[g]", (self.positive((4,)),))
        if kind == "function":
            return Term("jnp.sqrt({0} ** 2 + 0.2 * {1})", (self.positive(()), self.positive(())))
        if kind == "distributional" and self.room():
            return Term("jnp.exp(0.3 * {0})", (self.expression(shape, 1, 1),), linear=())
        return self.positive(())


_AFFINE = (
    "dist.TransformedDistribution(dist.Normal({0}, {1}), dist.transforms.AffineTransform(0.3, 2.0))"
)
_OBSERVED = {
    "Normal": ("dist.Normal({0}, {1})", "{0}"),
    "StudentT": ("dist.StudentT(4.0, {0}, {1})", "{0}"),
    "LogNormal": ("dist.LogNormal({0}, {1})", "np.exp({0})"),
    "sigmoid": (
        "dist.TransformedDistribution(dist.Normal({0}, {1}), "
        "[dist.transforms.AffineTransform(0.2, 1.5), dist.transforms.SigmoidTransform()])",
        "1 / (1 + np.exp(-{0}))",
    ),
}


def known(shape: Shape) -> Term:
    """A known array."""
    if not shape:
        return Term("0.4")
    size = 1
    for n in shape:
        size *= n
    line = f"np.linspace(-1.0, 1.0, {size})"
    return Term(line if len(shape) == 1 else f"{line}.reshape{shape}")


def plates_of(batch: Shape) -> tuple[tuple[int, int], ...]:
    """A plate for each dimension that is not 1."""
    return tuple((n, i - len(batch)) for i, n in enumerate(batch) if n > 1)
