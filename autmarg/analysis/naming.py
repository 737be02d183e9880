"""How sites, distributions and primitives are named in the reasons that users read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autmarg.compat.jaxprs import Op
from autmarg.ir.nodes import Deterministic, Factor, Node, Observe, Sample

if TYPE_CHECKING:
    from autmarg.analysis.sites import Normalised

# What users write for a JAX primitive.
_SPELLED: dict[str, str] = {
    Op.ADD: "+", Op.SUB: "-", Op.MUL: "*", Op.DIV: "/", Op.INTEGER_POW: "**", Op.SQUARE: "**",
    Op.POW: "**", Op.DOT_GENERAL: "@", Op.LT: "<", Op.LE: "<=", Op.GT: ">", Op.GE: ">=",
    Op.EQ: "==", Op.NE: "!=", Op.NEG: "-", Op.LOGISTIC: "sigmoid", Op.MAX: "maximum",
    Op.MIN: "minimum", Op.CLAMP: "clip", Op.SELECT_N: "where", Op.CONVERT_ELEMENT_TYPE: "astype",
    Op.REM: "%", Op.REDUCE_MAX: "max", Op.REDUCE_MIN: "min", Op.REDUCE_PROD: "prod",
}  # fmt: skip
# What users know a class by that NumPyro chooses for them.
_SPOKEN = {
    "LeftTruncatedDistribution": "truncated distribution",
    "RightTruncatedDistribution": "truncated distribution",
    "TwoSidedTruncatedDistribution": "truncated distribution",
    "FoldedDistribution": "folded distribution",
    "MixtureSameFamily": "mixture",
    "MixtureGeneral": "mixture",
}
_NAMED = 2  # readers that a reason spells out


def located(node: Node) -> str:
    """A site with the user's line: ``'y' (model.py:12)``."""
    return f"'{node.name}' ({node.place})" if node.place else f"'{node.name}'"


def a(kind: str) -> str:
    """A distribution's class as users name it, with its article: ``an LKJCholesky``."""
    name = spoken(kind)
    spelt = re.match(r"[A-Z]{2}", name)  # read letter by letter
    vowel = name[:1] in ("AEFHILMNORSX" if spelt else "AEIO")
    return f"{'an' if vowel else 'a'} {name}"


def spoken(kind: str) -> str:
    """A distribution's class as users name it: ``Bernoulli`` for ``BernoulliLogits``."""
    return _SPOKEN.get(kind) or re.sub(r"(Logits|Probs)$", "", kind)


def spelled(primitive: str) -> str:
    """A JAX primitive as users write it, quoted."""
    return f"'{_SPELLED.get(primitive, primitive)}'"


def uses(normalised: Normalised, name: str) -> str:
    """How other sites read a latent, in words that go on from "it".

    E.g. ``scales the noise of 'y' (model.py:12) and enters the mean of 'z' (model.py:14)``.
    """
    program = normalised.program
    readers = [c for c in program.children(name) if not isinstance(c, Deterministic)]
    readers = [c for c in readers if c.name != name]
    found = [_use(normalised, name, child) for child in readers[:_NAMED]]
    if more := len(readers) - len(found):
        found.append(f"is read by {more} more site{'s' if more > 1 else ''}")
    apart = ", and " if any(", " in words for words in found[:-1]) else " and "
    return apart.join(found) or "is read by no other site"


def _use(normalised: Normalised, name: str, child: Node) -> str:
    where = located(child)
    if isinstance(child, Factor):
        return f"enters numpyro.factor {where}"
    assert isinstance(child, Sample)
    if child.name not in normalised.gaussian:
        return f"enters {where}, {a(child.distribution.kind)}"
    part = next(_parts(normalised, name, child), "density")
    if part == "scale":
        return f"scales {'the noise of ' if isinstance(child, Observe) else ''}{where}"
    return f"enters the {part} of {where}"


def _parts(normalised: Normalised, name: str, child: Sample) -> Iterator[str]:
    """Parts of a Gaussian site that read a latent, the one that matters most first."""
    site, tape = normalised.gaussian[child.name], normalised.program.tape
    value = "observed value" if isinstance(child, Observe) else "transform"
    scale = "scale" if site.basis is None else "covariance"  # of what the basis combines
    for number, part in (
        (site.scale, scale), (site.scale_tril, "covariance"), (site.basis, "covariance"),
        (site.mask, "mask"), (site.value, value), (site.log_jacobian, "transform"),
        (site.loc, "mean"),
    ):  # fmt: skip
        if number is not None and name in tape.dependencies([number]):
            yield part
