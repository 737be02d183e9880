"""Elimination stages, one file each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from autmarg.errors import RequestError
from autmarg.gaussian.affine import Member
from autmarg.gaussian.pattern import Pattern
from autmarg.gaussian.registered import Registered
from autmarg.gaussian.stages.base import AnyStage, Stage
from autmarg.gaussian.stages.blocks import BatchedBlocks
from autmarg.gaussian.stages.chain import Chain
from autmarg.gaussian.stages.cost import Cost, Counts
from autmarg.gaussian.stages.dense import DenseRoot
from autmarg.gaussian.stages.triangular import TriangularRoot
from autmarg.gaussian.stages.unrolled import Unrolled


class Offered(Stage[Any, Any], Protocol):
    """A stage that says itself which columns it eliminates."""

    @classmethod
    def next(
        cls, pattern: Pattern, members: Sequence[Member]
    ) -> tuple[AnyStage, Pattern] | None: ...


REGISTERED: Registered[Offered] = Registered("stage", "next", "pattern, members")


def register_stage(stage: type[Offered], *, replace: bool = False) -> None:
    """Let a stage class of your own be tried before the built-in ones.

    Args:
        stage: a :class:`Stage` with a class method ``next(pattern, members)``, which returns the
            stage that eliminates some columns of the pattern and the pattern that it leaves, or
            None; an attribute ``columns`` with the numbers of its columns, and ``cost``, what a
            plan calls it and what it is predicted to take (a :class:`Cost`).
        replace: take the place of a stage of the same module and name that was registered before
            (a cell of a notebook that runs twice).

    Raises:
        RequestError: it is registered already and ``replace`` is false, or it has no ``next`` or
            no ``cost``.
    """
    REGISTERED.check(stage)
    if getattr(stage, "cost", None) in (None, vars(Stage)["cost"]):  # the protocol has no cost
        raise RequestError(
            f"{stage!r} does not say what it costs: expected a property cost that returns "
            "autmarg.gaussian.stages.Cost(structure, work, sizes, counts), or a stage that "
            "inherits one, such as BatchedBlocks"
        )
    REGISTERED.add(stage, replace=replace)


def next_registered(pattern: Pattern, members: Sequence[Member]) -> tuple[AnyStage, Pattern] | None:
    """What the first registered stage that applies makes of a pattern."""
    found = (stage.next(pattern, members) for stage in REGISTERED)
    return next((pair for pair in found if pair is not None), None)


__all__ = [
    "REGISTERED",
    "AnyStage",
    "BatchedBlocks",
    "Chain",
    "Cost",
    "Counts",
    "DenseRoot",
    "Stage",
    "TriangularRoot",
    "Unrolled",
    "next_registered",
    "register_stage",
]
