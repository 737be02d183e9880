"""Which data a transformed model has been run with, so that recovery for other data is noticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from autmarg.errors import RequestError
from autmarg.ir.program import Program

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_PLAIN = (bool, int, float, complex, str, bytes)
_REMEMBERED = 4096  # hashes of data sets
_REMEDY = "if these data are meant, say so: {method}(…, other_data=True)"


@dataclass(frozen=True)
class Made:
    """What draws were made from, by content: arrays may be changed in place afterwards.

    Attributes:
        program: its fingerprint; "" where there is none.
        key: a hash of its data that does not depend on their type.
        kind: the types of the arguments, and the precision.
    """

    program: str
    key: str
    kind: str

    @classmethod
    def of(cls, program: Program, key: str, given: Arguments) -> Made:
        """That of a program that was traced with some arguments."""
        return cls(program.fingerprint if program.comparable else "", key, _kind(given))

    def __reduce__(self) -> Any:
        """Fingerprints are of one process: another one does not know what the draws are of."""
        return Made, ("", self.key, self.kind)

    def is_of(self, program: Program, key: str, given: Arguments) -> bool:
        """Whether a program is the same, or has the same data in other types."""
        same = self.program == program.fingerprint
        return same or (self.kind != _kind(given) and self.key == key)


def _kind(given: Arguments) -> str:
    types = [getattr(x, "dtype", type(x).__name__) for x in jax.tree.leaves(given)]
    return f"{types} {jax.config.read('jax_enable_x64')}"


class Runs:
    """Fingerprints of the programs whose density a model has evaluated in this process."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}
        self._unknown = False  # whether data were traced, or cannot be compared

    def add(self, program: Program, traced: Mapping[str, Any], key: str) -> None:
        """Remember a run; ``key`` is a hash of its data that does not depend on their type."""
        if traced or not program.comparable:
            self._unknown = True
            return
        while len(self._seen) >= _REMEMBERED:
            self._seen.pop(next(iter(self._seen)))
        self._seen |= dict.fromkeys((program.fingerprint, key))

    def check(
        self,
        program: Program,
        traced: Mapping[str, Any],
        given: Arguments,
        key: str,
        ran: Arguments | None,
        trace: Callable[[Arguments], Program],
        method: str = "recover",
        made: Made | None = None,
    ) -> None:
        """Raise where draws would be recovered for data that they are not draws for.

        Args:
            program, traced, key: of the arguments ``given`` to recovery.
            ran: those of the run; None for a dict of draws, which says nothing of its data and is
                held against all runs of this process, if there was one.
            trace: arguments → their program.
            method: what needs the draws, for messages.
            made: what the draws were made from, where that is known.

        Raises:
            RequestError: they are draws for other data.
        """

        def alike(other: Arguments) -> bool:
            """Whether other arguments make the same program."""
            known = not traced and _concrete(other)
            return known and trace(other).fingerprint == program.fingerprint

        remedy = _REMEDY.format(method=method)
        if ran is not None and not _same(ran, given) and not alike(ran):
            raise RequestError(
                f"{method} was given other data or arguments than the run of '{program.name}' "
                f"({_difference(ran, given, method)}): expected what mcmc.run was given. For "
                "predictions, recover with the run's arguments and pass the draws to "
                f"Predictive(marg, draws) without data; {remedy}"
            )
        known = made if made and made.program and program.comparable and not traced else None
        if known is not None and not known.is_of(program, key, given):
            raise RequestError(
                f"{method} was given other data than these draws of '{program.name}' were made "
                "from: expected the arguments, and the arrays that the model closes over, as they "
                f"were then (an array may have been changed in place); {remedy}"
            )
        if known or traced or self._unknown or not program.comparable or not self._seen:
            return
        if program.fingerprint not in self._seen and key not in self._seen:
            raise RequestError(
                f"{method} was given data with which '{program.name}' has not been run in this "
                "session: expected the arguments, and the arrays that the model closes over, as "
                "they were when the draws were made (an array may have been changed in place); "
                f"{remedy}, for draws that were made elsewhere, too"
            )


def _concrete(arguments: Any) -> bool:
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments))


def _same(first: Any, second: Any) -> bool:
    """Whether two sets of arguments are equal, leaf by leaf."""
    (one, structure), (two, other) = jax.tree.flatten(first), jax.tree.flatten(second)
    return structure == other and all(map(_equal, one, two))


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tracer) or isinstance(two, Tracer):
        return one is two
    if isinstance(one, jax.Array | np.ndarray) or isinstance(two, jax.Array | np.ndarray):
        same = np.shape(one) == np.shape(two)
        return same and _alike(np.asarray(one), np.asarray(two))
    return one is two or (isinstance(one, _PLAIN) and type(one) is type(two) and one == two)


def _alike(one: np.ndarray, two: np.ndarray) -> bool:
    floats = one.dtype.kind in "fc" and two.dtype.kind in "fc"
    return np.array_equal(one, two, equal_nan=floats)


def _difference(ran: Any, given: Any, method: str) -> str:
    """The first argument in which two calls differ, in words."""
    for k, (one, two) in enumerate(zip(ran[0], given[0], strict=False)):
        if not _same(one, two):
            return f"argument {k + 1} differs: the run had {_shown(one)}, {method} {_shown(two)}"
    if len(ran[0]) != len(given[0]):
        return f"the run had {len(ran[0])} positional arguments, {method} {len(given[0])}"
    names = sorted({*ran[1], *given[1]})
    differ = [n for n in names if not _same(ran[1].get(n), given[1].get(n))]
    return f"the arguments {differ} differ"


def _shown(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape} that begins {np.ravel(value)[:3].tolist()}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


__all__ = ["Arguments", "Runs"]
