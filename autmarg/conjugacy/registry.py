"""The rules that autmarg knows: those it ships, one file each, and what users add."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from autmarg.errors import ModelError

if TYPE_CHECKING:
    from autmarg.conjugacy.language import Rule
    from autmarg.conjugacy.proof import Proof

_FOLDER = Path(__file__).parent / "shipped"
# Reasons why not are those of the last rule of a child, hence complements first.
SHIPPED = (
    "beta_bernoulli_complement",
    "beta_bernoulli",
    "beta_binomial_complement",
    "beta_binomial",
    "beta_geometric_complement",
    "beta_geometric",
    "beta_negative_binomial_complement",
    "beta_negative_binomial",
    "dirichlet_categorical",
    "dirichlet_multinomial",
    "gamma_exponential",
    "gamma_gamma",
    "gamma_normal",
    "gamma_poisson",
    "inverse_gamma_normal",
    "pareto_uniform",
)
_PRIOR = re.compile(r"^\s*prior\s+\w+\s*~\s*(\w+)", re.MULTILINE)
_added: list[Rule] = []


@cache
def shipped() -> tuple[Rule, ...]:
    """The rules of this package. Each is proved when a program first meets it."""
    return tuple(rule for text in _texts() for rule in _read(text))


@cache
def _texts() -> tuple[str, ...]:
    return tuple((_FOLDER / f"{name}.rules").read_text(encoding="utf-8") for name in SHIPPED)


def priors() -> frozenset[str]:
    """Names of the families that some rule has for its prior.

    Those of the shipped rules are read from their texts: most programs have no such prior, and
    parsing the rules takes half a second, most of it SymPy's import.
    """
    names = {name for text in _texts() for name in _PRIOR.findall(text)}
    return frozenset(names | {rule.prior.family.name for rule in _added})


def added() -> tuple[Rule, ...]:
    """The rules that users added."""
    return tuple(_added)


def _read(text: str) -> tuple[Rule, ...]:
    from autmarg.conjugacy.parser import parse  # needs SymPy, which is slow to import

    return parse(text)


def check_file(path: Path) -> Iterator[Proof]:
    """Prove the rules of a file, one after the other, without registering them.

    Raises:
        ModelError: the file cannot be read, is not in the language, or a rule is wrong
            (WrongRuleError) or could not be proved (UnprovedRuleError).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    yield from (_checked(rule) for rule in _read(text))


def _checked(rule: Rule) -> Proof:
    from autmarg.conjugacy.pattern import patterns  # needs SymPy, too
    from autmarg.conjugacy.proof import prove

    patterns(rule)
    return prove(rule)


def rules() -> tuple[Rule, ...]:
    """All rules, in the order in which they are tried."""
    return (*shipped(), *_added)


def register_rule(text: str, *, replace: bool = False) -> tuple[Proof, ...]:
    """Teach autmarg conjugacies.

    Args:
        text: one or more rules, as in docs/rules.md. Each says a prior, a child, and the prior's
            parameters given any number of children; the marginal likelihood is derived from it.
        replace: a rule whose name was registered before takes that one's place (a cell of a
            notebook that runs twice). Shipped rules are not replaced.

    Returns:
        What was proved of each, and how.

    Raises:
        ModelError: the text is not in the language, a rule is wrong (WrongRuleError) or could be
            neither proved nor refuted (UnprovedRuleError), or its name is taken. Nothing is added
            then; the message has what is left over in the proof.
    """
    found = _read(text)
    proofs = tuple(_checked(rule) for rule in found)
    names = [rule.name for rule in found]
    others = [rule for rule in _added if not (replace and rule.name in names)]
    names += [rule.name for rule in (*shipped(), *others)]
    if taken := sorted({name for name in names if names.count(name) > 1}):
        raise ModelError(
            f"rules are registered already: {', '.join(taken)}; expected new names, or "
            "replace=True for rules of your own"
        )
    _added[:] = [*others, *found]
    return proofs
