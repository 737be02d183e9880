"""What the linear algebra of a plan costs at least: its dense root's pieces, in the same loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.gaussian.stages import BatchedBlocks, DenseRoot
from examples.benchmarks.measure import alternate

Piece = Callable[[Any], Any]


def sizes(plan: Any) -> tuple[int, int]:
    """(size of the largest dense root, columns eliminated densely into it) of a plan."""
    root = columns = 0
    for group in plan.groups:
        for stage in group.schedule.stages:
            if isinstance(stage, DenseRoot):
                root = max(root, stage.size)
            elif isinstance(stage, BatchedBlocks):
                columns = max(columns, stage.blocks * stage.width)
    return root, columns


def floors(name: str, n: int, columns: int, rounds: int, seconds: float) -> dict[str, Any]:
    """One row: microseconds of the pieces at root size ``n``, and of what criterion 3 adds up.

    ``schur`` is the product [n, columns] · [columns, n], which a dense Schur complement needs.
    """
    rng = np.random.default_rng(0)
    A = rng.normal(size=(n, n))
    G = jnp.asarray(A @ A.T / n + np.eye(n))
    B = jnp.asarray(rng.normal(size=(n, max(columns, 1))))
    eye = jnp.eye(n)
    pieces: dict[str, Piece] = {
        "cholesky": jnp.linalg.cholesky,
        "inverse": lambda G: jax.scipy.linalg.solve_triangular(jnp.tril(G), eye, lower=True),
        "product": lambda G: G @ G,
        "schur": lambda G: (B * G[0, 0]) @ B.T,
    }
    calls = [_loop(piece, G) for piece in pieces.values()]
    times = alternate(calls, rounds, seconds)
    micro = {k: t.median * 1e6 for k, t in zip(pieces, times, strict=True)}
    floor = 3 * micro["schur"] + micro["cholesky"] + micro["inverse"] + 2 * micro["product"]
    return {"set": name, "root": n, "columns": columns, **micro, "floor": floor}


def _loop(piece: Piece, start: Any) -> Callable[[int], Any]:
    """So many steps of a piece, each on what the one before made a little different."""

    @jax.jit
    def loop(G: Any, steps: Any) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, G: start + 1e-12 * piece(G), G)

    return lambda steps: jax.block_until_ready(loop(start, steps))
