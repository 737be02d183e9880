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
        """The sum with numbers taken out, or None where there are none (SymPy's protocol)."""
        (arg,) = args
        if isinstance(arg, sympy.Add):
            return sympy.Add(*(cls(term) for term in arg.args))
        number, rest = arg.as_coeff_Mul()
        return number * cls(rest) if number != 1 and rest != 1 else None

    def fdiff(self, argindex: int = 1) -> Expr:
        """The derivative in its argument: 1."""
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


_GAMMA = (("concentration", POSITIVE), ("rate", POSITIVE))
_LINE = (
    Family(
        "Beta", (("concentration1", POSITIVE), ("concentration0", POSITIVE)), UNIT,
        "(concentration1 - 1)*log(x) + (concentration0 - 1)*log(1 - x)"
        " + lgamma(concentration1 + concentration0)"
        " - lgamma(concentration1) - lgamma(concentration0)",
    ),
    Family(
        "Gamma", _GAMMA, POSITIVE,
        "(concentration - 1)*log(x) - rate*x + concentration*log(rate) - lgamma(concentration)",
    ),
    Family(
        "InverseGamma", _GAMMA, POSITIVE,
        "-(concentration + 1)*log(x) - rate/x + concentration*log(rate) - lgamma(concentration)",
    ),
    Family(
        "Pareto", (("scale", POSITIVE), ("alpha", POSITIVE)), POSITIVE,
        "log(alpha) + alpha*log(scale) - (alpha + 1)*log(x)", bounds=("scale", ""),
    ),
    Family(
        "Normal", (("loc", REAL), ("scale", POSITIVE)), REAL,
        "-log(scale) - log(2*pi)/2 - (x - loc)**2/(2*scale**2)",
    ),
    Family("Exponential", (("rate", POSITIVE),), POSITIVE, "log(rate) - rate*x"),
    Family(
        "Uniform", (("low", REAL), ("high", REAL)), REAL, "-log(high - low)",
        bounds=("low", "high"),
    ),
    Family("Bernoulli", (("probs", UNIT),), BINARY, "x*log(probs) + (1 - x)*log(1 - probs)"),
    Family(
        "Binomial", (("total_count", COUNT), ("probs", UNIT)), COUNT,
        "lgamma(total_count + 1) - lgamma(x + 1) - lgamma(total_count - x + 1)"
        " + x*log(probs) + (total_count - x)*log(1 - probs)",
        bounds=("", "total_count"),
    ),
    Family("Geometric", (("probs", UNIT),), COUNT, "log(probs) + x*log(1 - probs)"),
    Family(
        "NegativeBinomial", (("total_count", POSITIVE), ("probs", UNIT)), COUNT,
        "lgamma(x + total_count) - lgamma(total_count) - lgamma(x + 1)"
        " + x*log(probs) + total_count*log(1 - probs)",
    ),
    Family("Poisson", (("rate", POSITIVE),), COUNT, "x*log(rate) - rate - lgamma(x + 1)"),
    Family(
        "Dirichlet", (("concentration", POSITIVE),), UNIT,
        "Total((concentration - 1)*log(x)) + lgamma(Total(concentration))"
        " - Total(lgamma(concentration))",
        vectors=("concentration",),
    ),
    Family(
        "Categorical", (("probs", UNIT),), COUNT, "Total(onehot(x)*log(probs))",
        vectors=("probs",), labels=True,
    ),
    Family(
        "Multinomial", (("total_count", COUNT), ("probs", UNIT)), COUNT,
        "lgamma(total_count + 1) - Total(lgamma(x + 1)) + Total(x*log(probs))",
        vectors=("probs",),
    ),
)  # fmt: skip
FAMILIES = {family.name: family for family in _LINE}
