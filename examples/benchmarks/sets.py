"""What the benchmark runs on: the reference data sets, and synthetic ones by their description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.agreement import SLEEPSTUDY
from examples.benchmarks.opponents import Factor
from examples.models import REFERENCE, VARIANTS
from examples.models.reference import Model

Draws = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Set:
    """One data set with its model.

    Attributes:
        name: of the set.
        args: positional arguments of the model, observed values last.
        source: the model as its user writes it, centred.
        noncentred: the same with standard noise by hand; None where that is no other model.
        effects: what takes draws of ``noncentred`` to those of ``source``.
        observed: name of the observed site.
        factors: the grouping factors, the largest first.
        fixed: names of the fixed effects.
        formula: in lme4's language, over columns c0, c1, … of ``args``; None where lme4 has none.
    """

    name: str
    args: tuple[Any, ...]
    source: Model
    noncentred: Model | None
    effects: Callable[[Draws], Draws]
    observed: str
    factors: tuple[Factor, ...]
    fixed: tuple[str, ...]
    formula: str | None = None

    @property
    def rows(self) -> int:
        return len(self.args[-1])


@dataclass(frozen=True)
class _Description:
    """A reference set: grouping factors as {names of effects: (argument of the levels, columns)}.

    A column is the number of an argument, or None for a column of ones.
    """

    observed: str
    factors: Mapping[str, tuple[int, tuple[int | None, ...]]]
    fixed: str
    effects: Callable[[Draws, tuple[Any, ...]], Draws]
    formula: str | None = None


def _correlated(draws: Draws, args: tuple[Any, ...]) -> Draws:
    """Every u = z_u (diag(tau_u) L_u)ᵀ, in place of z_u (where tau_u is a latent)."""
    out = dict(draws)
    for name in [n[2:] for n in draws if n.startswith("z_") and f"tau_{n[2:]}" in draws]:
        scale = np.asarray(out[f"tau_{name}"])[..., None]
        if f"L_{name}" in out:
            factor = scale * np.asarray(out[f"L_{name}"])
            out[name] = np.asarray(out.pop(f"z_{name}")) @ np.swapaxes(factor, -1, -2)
        else:
            out[name] = scale * np.asarray(out.pop(f"z_{name}"))
    return out


def _location_scale(draws: Draws, pairs: Mapping[str, tuple[str, str]]) -> Draws:
    """Each u = m + s z_u, in place of z_u."""
    out = dict(draws)
    for name, (mean, scale) in pairs.items():
        noise = np.asarray(out.pop(f"z_{name}"))
        out[name] = np.asarray(out[mean])[..., None] + np.asarray(out[scale])[..., None] * noise
    return out


def _grouseticks(draws: Draws, args: tuple[Any, ...]) -> Draws:
    return _location_scale(draws, {"brood": ("m_b", "s_b"), "location": ("m_l", "s_l")})


def _fibrosis(draws: Draws, args: tuple[Any, ...]) -> Draws:
    return _location_scale(draws, {"a": ("m_a", "s_a"), "b": ("m_b", "s_b")})


def _electric(draws: Draws, args: tuple[Any, ...]) -> Draws:
    out = dict(draws)
    out["a"] = 100 * np.asarray(out["mua"])[..., args[3]] + np.asarray(out.pop("z_a"))
    out["b"] = 100 * np.asarray(out.pop("z_b"))
    return out


_SLOPES = (None, 2)
_CROSSED = {"u": (0, _SLOPES), "w": (1, _SLOPES)}
_LME4 = "~ 1 + c2 + (1 + c2 | c0) + (1 + c2 | c1)"
_SUBJECTS = {"u": (0, (None, 1))}


def _crossed(formula: str, **factors: Any) -> _Description:
    return _Description("y", factors or _CROSSED, "alpha beta", _correlated, formula)


_DESCRIPTIONS: dict[str, _Description] = {
    "insteval": _Description(
        "y", {"s": (0, (None,)), "d": (1, (None,)), "p": (2, (None,))}, "alpha b", _correlated,
        "c4 ~ 1 + c3 + (1 | c0) + (1 | c1) + (1 | c2)",
    ),
    "grouseticks": _Description(
        "ticks", {"brood": (0, (None,)), "location": (1, (None,))}, "m_b m_l y h", _grouseticks,
        "c4 ~ 1 + c2 + c3 + (1 | c0) + (1 | c1)",
    ),
    "electric": _Description("y", {"a": (0, (None,))}, "mua b", _electric),
    "fibrosis": _Description(
        "fvc", {"a b": (0, (None, 1))}, "m_a m_b", _fibrosis, "c2 ~ 1 + c1 + (1 + c1 || c0)"
    ),
    "dillonE1": _crossed(f"log(c3) {_LME4}"),
    "dutch": _crossed(f"c3 {_LME4}", u=(0, _SLOPES), v=(1, _SLOPES)),
    "english": _crossed(f"c3 {_LME4}", u=(0, _SLOPES), v=(1, _SLOPES)),
    "eeg": _crossed(f"c3 {_LME4}"),
    "gg05": _Description(
        "rt", {name: (k, (None, 3)) for k, name in enumerate("uwv")}, "alpha beta", _correlated,
        "log(c4) ~ 1 + c3 + (1 + c3 | c0) + (1 + c3 | c1) + (1 + c3 | c2)",
    ),
    "mandarin": _crossed(f"log(c3) {_LME4}"),
    "mandarin2": _crossed(f"log(c3) {_LME4}"),
    "pupil": _Description(
        "p_size", _SUBJECTS, "alpha beta", _correlated, "c2 ~ 1 + c1 + (1 + c1 | c0)"
    ),
    "stroop": _Description("rt", _SUBJECTS, "alpha beta", _correlated),
}  # fmt: skip
_DESCRIPTIONS["insteval_scales"] = _DESCRIPTIONS["insteval"]
_DESCRIPTIONS["sleepstudy"] = _Description(
    "reaction", _SUBJECTS, "alpha beta", _correlated, "c2 ~ 1 + c1 + (1 + c1 | c0)"
)
_ALL = {**REFERENCE, **VARIANTS, SLEEPSTUDY.name: SLEEPSTUDY}
NAMES = tuple(REFERENCE)


def load_set(name: str) -> Set:
    """A reference set by its name, or a synthetic one by its description (``crossed:…``).

    Raises:
        KeyError: no set has this name.
        MissingData: the file of a reference set is absent.
    """
    if ":" in name:
        from examples.benchmarks.synthetic import synthetic_set

        return synthetic_set(name)
    if name not in _DESCRIPTIONS:
        raise KeyError(f"no set {name!r}; expected one of {', '.join(_DESCRIPTIONS)}")
    reference, about = _ALL[name], _DESCRIPTIONS[name]
    args = reference.arguments()
    factors = [
        Factor.of(effects, args[levels], [None if c is None else args[c] for c in columns])
        for effects, (levels, columns) in about.factors.items()
    ]
    return Set(
        name,
        args,
        reference.first,
        reference.spellings.get("noncentred"),
        lambda draws: about.effects(draws, args),
        about.observed,
        tuple(sorted(factors, key=lambda f: -f.size)),
        tuple(about.fixed.split()),
        about.formula,
    )
