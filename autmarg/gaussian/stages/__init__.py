"""Elimination stages, one file each; :class:`Stage` is what they have in common."""

from __future__ import annotations

from typing import Any, Protocol

from autmarg.gaussian.quadratic import QuadraticForm
from autmarg.gaussian.stages.blocks import BatchedBlocks
from autmarg.gaussian.stages.dense import DenseRoot

STAGES = (BatchedBlocks, DenseRoot)


class Stage(Protocol):
    """Eliminates some columns of a quadratic form.

    ``eliminate`` integrates them out; ``back`` draws them given the columns of later stages and
    standard normal noise (the conditional mean with noise zero); ``noise`` is the inverse of
    ``back``. z and ξ are full-length vectors [columns], each stage reads and writes its own part.
    """

    name: str
    size: int

    def eliminate(self, form: QuadraticForm) -> tuple[Any, QuadraticForm]: ...

    def back(self, factor: Any, z: Any, noise: Any) -> Any: ...

    def noise(self, factor: Any, z: Any) -> Any: ...

    def log_det(self, factor: Any) -> Any: ...


__all__ = ["STAGES", "BatchedBlocks", "DenseRoot", "Stage"]
