"""Hypothesis strategies for programs: expressions are drawn top down, latents where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.support.generator.constructs import (
    CORRELATED,
    CORRELATED_FROM_ZERO,
    EVERYWHERE,
    MATRICES,
    MATRICES_FROM_ZERO,
    NONLINEAR,
    POSITIVE,
    RULES,
    Shape,
)
from tests.support.generator.program import Program, Site, Term

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
        end = build.gaussian(build.pick([(4,), ()]), level=1)
        masked = build.pick([False, True]) and not end.handler
        ends.append(replace(end, handler="numpyro.handlers.mask(mask=False)") if masked else end)
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
        name, wide = self.name("u"), [n for n in shape[-2:] if n > 1]
        events = [0] if tame or not wide or shape[-1] == 1 else [0, 0, 0, 1, 1]
        event = self.pick(events + [2] * (events[-1] == 1 and len(wide) == 2))
        if event:
            value = self.correlated(shape, level, event)
            name = f"c{name}" if "ZeroSum" in value.template else name
            site = self.spelled(Site(name, value, name), shape, event, scalar=False)
        else:
            site = self.normal(name, shape, level, tame)
        self.gaussians.append((shape if shared else (-1,), site))
        return site

    def normal(self, name: str, shape: Shape, level: int, tame: bool) -> Site:
        """Independent elements: as they are, reparameterised, or partly observed."""
        (loc, scalar), (scale, scalar_scale) = self.loc(shape, level, 0), (Term("0.5"), True)
        if not tame:
            scale, scalar_scale = self.scale(shape)
        value = Term("dist.Normal({0}, {1})", (loc, scale), linear=(0,))
        ways = ["", "", "", "", "affine", "TransformReparam", "LocScaleReparam(0.0)"]
        ways += ["LocScaleReparam(0.4)"] + ["obs_mask"] * (shape == (12,))
        way = self.pick(ways) if not tame else ""
        if way == "obs_mask":
            spread = Term("{0}.expand([12])", (value,))
            plates = self.pick([(), plates_of(shape)])
            arguments = ", obs=0.4 * Y, obs_mask=seen"
            return Site(name, spread, f"{name}_unobserved", plates, arguments)
        if way in ("affine", "TransformReparam"):
            value = Term(_AFFINE, (value,))
        elif not way:
            return self.spelled(Site(name, value, name), shape, 0, scalar and scalar_scale)
        site = self.spelled(Site(name, value, name), shape, 0, scalar=False)
        if way == "affine":
            return site
        call = way if "(" in way else f"{way}()"
        handler = f"numpyro.handlers.reparam(config={{'{name}': numpyro.infer.reparam.{call}}})"
        suffix = "base" if way == "TransformReparam" else "decentered"
        through = suffix == "decentered"
        return replace(site, handler=handler, latent=f"{name}_{suffix}", through=through)

    def spelled(self, site: Site, shape: Shape, event: int, scalar: bool) -> Site:
        value, plates, arguments = self.spelling(site.value, shape, event, scalar)
        return replace(site, value=value, plates=plates, arguments=arguments)

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

    def correlated(self, shape: Shape, level: int, event: int) -> Term:
        """A prior of correlated elements along the last ``event`` axes."""
        with_mean, from_zero = _EVENTS[event]
        text = self.pick([*with_mean, *from_zero])
        loc = self.loc(shape, level, event)[0] if text in with_mean else None
        return self.family(text, {**with_mean, **from_zero}[text], shape, loc)

    def family(
        self, text: str, reads: Sequence[str], shape: Shape, loc: Term | Site | None
    ) -> Term:
        """The distribution that ``text`` is, its latents filled in."""
        operands = [] if loc is None else [loc]
        holes = {"d": str(shape[-1]), "n": str(shape[-2:][0])}
        for i, letter in enumerate(reads, start=len(operands)):
            holes[letter] = f"{{{i}}}"
            operands.append(self.operand_of(letter, shape[-1]))
        return Term(_fill(text, holes), tuple(operands), linear=() if loc is None else (0,))

    def operand_of(self, letter: str, d: int) -> Site:
        if letter == "L":
            return self.cholesky(d)
        return self.positive((d,) if letter == "v" else ())

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
        handler, plates, latent, arguments = "", (), None, ""
        if family == "multivariate":
            loc = Term(f"{{0}} + jnp.zeros({shape})", (mean,))
            text = self.pick(list(CORRELATED))
            value = self.family(text, CORRELATED[text], shape, loc)
            batch = shape[:-1]
        else:
            text, data = _OBSERVED[family][0], _OBSERVED[family][1].format(data)
            linear = () if family == "StudentT" else (0,)
            value = Term(text, (mean, self.noise(shape)), linear=linear)
            batch = shape
            mask = self.pick(["", "", "", "handler", "method", "known", "latent", "obs_mask"])
            reshaped = "seen" if len(shape) == 1 else f"seen.reshape{shape}"
            if mask == "handler":
                handler = f"numpyro.handlers.mask(mask={reshaped})"
            elif mask == "method":
                value = Term(f"{{0}}.mask({reshaped})", (value,))
            elif mask == "known":
                handler = f"numpyro.handlers.mask(mask={self.pick([True, False])})"
            elif mask == "latent":
                value = Term("{0}.mask({1} > 0.7)", (value, self.positive(())), linear=())
            elif mask == "obs_mask" and family in ("Normal", "StudentT"):
                # The parameters may be smaller than the data, of which the mask is.
                value = Term(f"{{0}}.expand({list(shape)})", (value,))
                arguments = f", obs_mask={reshaped}"
                latent = f"{name}_unobserved" if family == "Normal" else None
        if self.pick([False, True]):
            plates = plates_of(batch)
        return Site(name, value, latent, plates, f", obs={data}{arguments}", handler)

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


_AFFINE = "dist.TransformedDistribution({0}, dist.transforms.AffineTransform(0.3, 2.0))"
# Families of correlated elements by the number of axes that they span: with a mean, and without.
_EVENTS = {1: (CORRELATED, CORRELATED_FROM_ZERO), 2: (MATRICES, MATRICES_FROM_ZERO)}
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


def _fill(text: str, holes: dict[str, str]) -> str:
    """``text`` with letters filled in, and {0} left as it is."""
    for letter, value in holes.items():
        text = text.replace(f"{{{letter}}}", value)
    return text


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
