"""Elimination stages, one file each."""

from __future__ import annotations

from autmarg.gaussian.stages.base import Stage
from autmarg.gaussian.stages.blocks import BatchedBlocks
from autmarg.gaussian.stages.chain import Chain
from autmarg.gaussian.stages.dense import DenseRoot
from autmarg.gaussian.stages.unrolled import Unrolled

STAGES = (BatchedBlocks, Chain, Unrolled, DenseRoot)

__all__ = ["STAGES", "BatchedBlocks", "Chain", "DenseRoot", "Stage", "Unrolled"]
