"""What can go wrong, in three families, and the two values every stage speaks of.

* :class:`ModelError`: something in the user's model or data is wrong.
* :class:`RequestError`: the model is fine, what was asked of it cannot be done.
* :class:`InternalError`: autmarg itself is wrong; please report it.

A :class:`Refusal` is not an error: it is the reason, as a value, why a rule did not apply.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A line of the user's program."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{_cell(self.file) or self.file.rsplit('/', 1)[-1]}:{self.line}"


def _cell(file: str) -> str:
    """``In[3]`` for the file that IPython pretends a notebook's cell to be; else nothing."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cells = getattr(getattr(shell, "compile", None), "_filename_map", {})
    return f"In[{cells[file]}]" if file in cells else ""


WHOLE_MODEL = "model left as it is"  # the rule that failed, where it concerns no site alone


@dataclass(frozen=True)
class Refusal:
    """Why a rule did not apply to a site.

    Attributes:
        site: the latent that stays (or the node the rule was tried on).
        rule: short name of the condition that failed, e.g. ``"non-Gaussian child"``.
        reason: one sentence in words, without a full stop; it begins with the site's quoted name.
        place: the user's line that stands in the way, if there is one.
        remedy: what the user could change, or ``""``.
        nearest: the rule that almost applied.
        needed: what would make it apply.
        culprit: the site, or the JAX primitive, that stands in the way at ``place``.
        own: the line of the site itself.
        use: how other sites read it, in words that go on from "it", where that belongs to the
            reason: ``scales the noise of 'y' (model.py:12)``.
    """

    site: str
    rule: str
    reason: str
    place: Place | None = None
    remedy: str = ""
    nearest: str = "linear Gaussian"
    needed: str = ""
    culprit: str = ""
    own: Place | None = None
    use: str = ""

    def __str__(self) -> str:
        subject, reason = f"'{self.site}' ", self.reason
        if self.use:
            reason = f"{reason}, and it {self.use}, so it is sampled"
        if self.own is not None and reason.startswith(subject):
            reason = f"{subject}({self.own}) {reason.removeprefix(subject)}"
        where = f" ({self.place})" if self.place and f"({self.place})" not in reason else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{reason}{where}{remedy}"


def named(names: Sequence[str]) -> str:
    """Quoted names as a list in words: ``'a', 'b' and 'c'``."""
    quoted = [f"'{name}'" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def suggestions(refusals: Iterable[Refusal]) -> list[str]:
    """What to do about latents under a likelihood that is not Gaussian, as sentences."""
    sites: dict[str, list[str]] = {}
    for refusal in refusals:
        if refusal.rule == "non-Gaussian child" and refusal.needed:
            sites.setdefault(refusal.needed, []).append(refusal.site)
    return [f"For {named(names)}: {needed}." for needed, names in sites.items()]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`` (did you mean 'sigma'?)`` where one of ``names`` is nearly ``name``, else nothing."""
    spelt = {other.lower(): other for other in names}
    close = difflib.get_close_matches(str(name).lower(), list(spelt), n=1)
    return f" (did you mean '{spelt[close[0]]}'?)" if close else ""


class AutmargError(Exception):
    """Base class of everything autmarg raises on purpose."""


class ModelError(AutmargError):
    """The user's model or data is wrong: says what was expected, found, and where."""


class InconclusiveError(ModelError):
    """``verify`` could compare nothing; ``report`` says why at which sites."""

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


class RequestError(AutmargError):
    """The request cannot be met; ``refusals`` says which precondition fails where."""

    def __init__(self, message: str, refusals: tuple[Refusal, ...] = ()) -> None:
        super().__init__("\n".join([message, *(f"  {_with_subject(r)}" for r in refusals)]))
        self.refusals = refusals


def _with_subject(refusal: Refusal) -> str:
    own = refusal.reason.startswith(f"'{refusal.site}' ")
    return str(refusal) if own else f"'{refusal.site}': {refusal}"


class ImproperPriorError(RequestError, NotImplementedError):
    """A draw from a prior that has none (NumPyro's initialisation then takes another value)."""


class PassError(RequestError):
    """A pass that is not autmarg's own raised, or did not return a well-formed program."""


class WrongRuleError(ModelError):
    """A rule was refuted; shows what is left over in the proof."""


class UnprovedRuleError(ModelError):
    """A rule could be neither proved nor refuted; shows what is left over."""


class InternalError(AutmargError):
    """A bug of autmarg's own, with what is needed to report it."""


class ExactnessError(InternalError):
    """``verify`` found that the transformed model is not the user's; ``report`` has the numbers."""

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report
