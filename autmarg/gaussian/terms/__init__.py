"""Terms of the energy ½ (Σ rᵀW r + zᵀz): one kind of rows each, one file a kind."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Protocol

from autmarg.gaussian.affine import AffineForm, Rows
from autmarg.gaussian.registered import Registered
from autmarg.gaussian.terms.base import Placed, Term
from autmarg.gaussian.terms.summed import Summed
from autmarg.gaussian.terms.walked import Walked
from autmarg.gaussian.terms.whitened import Whitened


class Taking(Term, Protocol):
    """A term that says itself which rows it takes."""

    @classmethod
    def take(
        cls, form: AffineForm, rows: tuple[Rows, ...]
    ) -> tuple[Term, tuple[Rows, ...]] | None: ...


REGISTERED_TERMS: Registered[Taking] = Registered("term", "take", "form, rows")


def register_term(term: type[Taking], *, replace: bool = False) -> None:
    """Let a class of your own take rows before the built-in terms of the energy do.

    Args:
        term: a :class:`Term` with a class method ``take(form, rows)``, which returns the term of
            some rows of independent noise and those that it leaves, or None.
        replace: take the place of a term of the same module and name that was registered before
            (a cell of a notebook that runs twice).

    Raises:
        RequestError: it is registered already and ``replace`` is false, or it has no ``take``.
    """
    REGISTERED_TERMS.add(term, replace=replace)


def terms_of(form: AffineForm, walked: tuple[Rows, ...] = ()) -> tuple[Term, ...]:
    """The terms of all rows of a form; ``walked`` are others, which chains take one by one."""
    rest: tuple[Rows, ...] = form.independent
    found: list[Term] = []
    for each in REGISTERED_TERMS:
        if (taken := each.take(form, rest)) is not None:
            term, rest = taken
            found.append(term)
    whitened = [
        Whitened.plan(rows, number, form.columns) for number, rows in enumerate(form.correlated)
    ]
    if walked:
        found.append(Walked(form, walked))
    return (Summed.of(changed(form, rows=tuple(rest))), *whitened, *found)


__all__ = [
    "REGISTERED_TERMS",
    "Placed",
    "Summed",
    "Term",
    "Walked",
    "Whitened",
    "register_term",
    "terms_of",
]
