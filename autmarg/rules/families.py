"""The distributions that rules speak of, as text: parameters, support, log-density.

Names and the order of parameters are NumPyro's. In a density ``x`` is the value, ``Total`` the sum
over the coordinates of a vector, and ``onehot(x)`` the vector with a one at the coordinate ``x``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy

Expr = Any  # of sympy, whose own annotations allow less than its functions take


class Total(sympy.Function):
    """Σ_k f(v_k) over the coordinates k of vectors; a vector's symbol stands for its coordinate k.

    Linear, and the derivative in one coordinate is that of its own term.
    """

    nargs = 1

    @classmethod
    def eval(cls, *args: Expr) -> Expr:
        (arg,) = args
        if isinstance(arg, sympy.Add):
            return sympy.Add(*(cls(term) for term in arg.args))
        number, rest = arg.as_coeff_Mul()
        return number * cls(rest) if number != 1 and rest != 1 else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.Integer(1)


class onehot(sympy.Function):
    """The indicator of each coordinate: zero or one."""

    nargs = 1
    is_nonnegative = True
    is_integer = True


NAMES = {"Total": Total, "onehot": onehot, "lgamma": sympy.loggamma, "log": sympy.log}

# What a parameter or a value may be. An unbounded set ends at None.
REAL, POSITIVE, NONNEGATIVE, UNIT = "real", "positive", "nonnegative", "between 0 and 1"
COUNT, BINARY = "a count", "zero or one"
ASSUMPTIONS = {
    REAL: {"real": True},
    POSITIVE: {"positive": True},
    NONNEGATIVE: {"nonnegative": True},
    UNIT: {"positive": True},
    COUNT: {"integer": True, "nonnegative": True},
    BINARY: {"integer": True, "nonnegative": True},
}


@dataclass(frozen=True)
class Family:
    """A family of distributions.

    Attributes:
        name: as in NumPyro.
        parameters: names with what each may be.
        support: what the value may be.
        bounds: of the value, in terms of the parameters ("" where ``support`` says it all); a
            discrete value may lie on them.
        density: the log-density.
        vector: whether values (and parameters named in ``vectors``) are vectors.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    support: str
    density: str
    bounds: tuple[str, str] = ("", "")
    vectors: tuple[str, ...] = ()
    labels: bool = False

    @property
    def vector(self) -> bool:
        """Whether it is about vectors."""
        return bool(self.vectors)

    @cached_property
    def symbols(self) -> dict[str, Expr]:
        """The parameters and the value, x, as symbols."""
        return {name: sympy.Symbol(name) for name in ("x", *dict(self.parameters))}

    def log_density(self, value: Expr, arguments: tuple[Expr, ...]) -> Expr:
        """The log-density of ``value`` with ``arguments`` for the parameters."""
        return self._filled(self.density, value, arguments)

    def limits(self, value: Expr, arguments: tuple[Expr, ...]) -> tuple[Expr | None, Expr | None]:
        """Bounds that depend on parameters, lower and upper."""
        low, high = (self._filled(b, value, arguments) if b else None for b in self.bounds)
        return low, high

    def _filled(self, text: str, value: Expr, arguments: tuple[Expr, ...]) -> Expr:
        parse: Any = sympy.sympify
        expression = parse(text, locals={**NAMES, **self.symbols})
        filled = dict(zip((name for name, _ in self.parameters), arguments, strict=True))
        filled["x"] = value
        return expression.xreplace({self.symbols[name]: e for name, e in filled.items()})


_GAMMA = (("a", POSITIVE), ("b", POSITIVE))
_LINE = (
    Family(
        "Beta", _GAMMA, UNIT,
        "(a - 1)*log(x) + (b - 1)*log(1 - x) + lgamma(a + b) - lgamma(a) - lgamma(b)",
    ),
    Family("Gamma", _GAMMA, POSITIVE, "(a - 1)*log(x) - b*x + a*log(b) - lgamma(a)"),
    Family("InverseGamma", _GAMMA, POSITIVE, "-(a + 1)*log(x) - b/x + a*log(b) - lgamma(a)"),
    Family(
        "Pareto", (("m", POSITIVE), ("k", POSITIVE)), POSITIVE,
        "log(k) + k*log(m) - (k + 1)*log(x)", bounds=("m", ""),
    ),
    Family(
        "Normal", (("m", REAL), ("s", POSITIVE)), REAL,
        "-log(s) - log(2*pi)/2 - (x - m)**2/(2*s**2)",
    ),
    Family("Exponential", (("r", POSITIVE),), POSITIVE, "log(r) - r*x"),
    Family(
        "Uniform", (("l", REAL), ("h", REAL)), REAL, "-log(h - l)", bounds=("l", "h"),
    ),
    Family("Bernoulli", (("p", UNIT),), BINARY, "x*log(p) + (1 - x)*log(1 - p)"),
    Family(
        "Binomial", (("n", COUNT), ("p", UNIT)), COUNT,
        "lgamma(n + 1) - lgamma(x + 1) - lgamma(n - x + 1) + x*log(p) + (n - x)*log(1 - p)",
        bounds=("", "n"),
    ),
    Family("Geometric", (("p", UNIT),), COUNT, "log(p) + x*log(1 - p)"),
    Family(
        "NegativeBinomial", (("r", POSITIVE), ("p", UNIT)), COUNT,
        "lgamma(x + r) - lgamma(r) - lgamma(x + 1) + x*log(p) + r*log(1 - p)",
    ),
    Family("Poisson", (("r", POSITIVE),), COUNT, "x*log(r) - r - lgamma(x + 1)"),
    Family(
        "Dirichlet", (("a", POSITIVE),), UNIT,
        "Total((a - 1)*log(x)) + lgamma(Total(a)) - Total(lgamma(a))", vectors=("a",),
    ),
    Family(
        "Categorical", (("p", UNIT),), COUNT, "Total(onehot(x)*log(p))", vectors=("p",),
        labels=True,
    ),
    Family(
        "Multinomial", (("n", COUNT), ("p", UNIT)), COUNT,
        "lgamma(n + 1) - Total(lgamma(x + 1)) + Total(x*log(p))", vectors=("p",),
    ),
)  # fmt: skip
FAMILIES = {family.name: family for family in _LINE}
