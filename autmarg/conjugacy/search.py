"""The search for conjugacies, begun only where a program may have one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from autmarg.analysis.sites import Normalised
from autmarg.conjugacy.reading import BUILDERS, READERS, class_of
from autmarg.conjugacy.registry import priors
from autmarg.conjugacy.unread import is_unread
from autmarg.errors import Refusal
from autmarg.ir.nodes import Sample
from autmarg.ir.program import Program

if TYPE_CHECKING:
    from autmarg.conjugacy.match import Conjugacy
    from autmarg.conjugacy.shared import GaussianGroup


def conjugacies(
    normalised: Normalised, names: Collection[str], groups: Sequence[GaussianGroup]
) -> tuple[tuple[Conjugacy, ...], dict[str, Refusal]]:
    """As :func:`autmarg.conjugacy.match.conjugacies`, which needs SymPy: imported if needed.

    Args:
        normalised, names, groups: of that function.
    """
    program = normalised.program
    if not any(_is_candidate(program, n) for n in program.latents if n.name in names):
        return (), {}
    from autmarg.conjugacy import match

    return match.conjugacies(normalised, names, groups)


def _is_candidate(program: Program, latent: Sample) -> bool:
    """Whether nothing reads a latent, or its prior may be that of a rule."""
    readable = set(READERS.get(class_of(program, latent), ())) & set(BUILDERS)
    return is_unread(program, latent) or bool(readable & priors())


__all__ = ["conjugacies"]
