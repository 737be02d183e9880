"""The tables of the experiments, as Markdown, from the CSV file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples.benchmarks.measure import table
from examples.paper.results import Result, results

# Divergences as the authors' plotting script has them, of 10,000 draws with one seed; none for
# programs that the paper has not.
PAPER_DIVERGENCES = {
    "brood sampled, location sampled": 54,
    "brood integrated, location sampled": 32,
    "brood sampled, location integrated": 0,
    "brood integrated, location non-centred": 27,
    "brood non-centred, location integrated": 0,
    "brood non-centred, location non-centred": 12,
}


_NOTHING = 1e-3  # seconds of a recovery that has nothing to draw


def insteval(found: Sequence[Result]) -> list[dict[str, Any]]:
    """Effective draws of each variable for 100 draws, and seconds."""
    sites = [*dict.fromkeys(site for r in found for site in r.ess)]
    return [
        {
            "integrated out": r.program,
            "sampled": r.dims,
            "leapfrogs/draw": r.steps,
            "seconds": r.warmup_s + r.sampling_s,
        }
        | {f"mean ESS {s}": 100 * r.ess[s] / r.each if s in r.ess else None for s in sites}
        | {"least ESS/s": r.per_second, "stopped": r.cut}
        for r in found
    ]


def grouseticks(found: Sequence[Result]) -> list[dict[str, Any]]:
    """Divergences for 1,000 draws with each combination of forms."""
    return [
        {
            "program": r.program,
            "sampled": r.dims,
            "divergences/1,000": 1000 * r.div / r.draws if r.draws else None,
            "paper, of 10,000": PAPER_DIVERGENCES.get(r.program),
            "leapfrogs/draw": r.steps,
            "least ESS": r.min_ess,
            "least ESS/s": r.per_second,
            "stopped": r.cut,
        }
        for r in found
    ]


def times(found: Sequence[Result]) -> list[dict[str, Any]]:
    """Seconds of compilation and of the run."""
    return [
        {
            "set": r.set,
            "program": r.program,
            "sampled": r.dims,
            "compile s": r.compile_s,
            "run s": r.warmup_s + r.sampling_s,
            "recover s": r.recover_s if r.recover_s > _NOTHING else None,
            "all s": r.compile_s + r.warmup_s + r.sampling_s + r.recover_s,
            "leapfrogs/draw": r.steps,
            "least ESS": r.min_ess,
            "least ESS/s": r.per_second,
            "stopped": r.cut,
        }
        for r in found
    ]


def cognitive(found: Sequence[Result]) -> list[dict[str, Any]]:
    """Iterations a second and effective draws an iteration."""
    return [
        {
            "set": r.set,
            "program": r.program,
            "sampled": r.dims,
            "iterations/s": r.iterations,
            "mean ESS/iteration": r.per_draw,
            "leapfrogs/draw": r.steps,
            "divergences": r.div,
            "least ESS": r.min_ess,
            "least ESS/s": r.per_second,
            "stopped": r.cut,
        }
        for r in found
    ]


TABLES: dict[str, Callable[[Sequence[Result]], list[dict[str, Any]]]] = {
    "insteval": insteval,
    "grouseticks": grouseticks,
    "times": times,
    "cognitive": cognitive,
}


def tables(path: Path) -> dict[str, str]:
    """The table of each experiment that the file has rows of; columns without entries left out."""
    out = {}
    for name, make in TABLES.items():
        if found := results(path, name):
            rows = make(found)
            used = [c for c in rows[0] if any(row[c] not in (None, "") for row in rows)]
            out[name] = table([{c: _known(row[c]) for c in used} for row in rows], markdown=True)
    return out


def _known(value: Any) -> Any:
    """None for what is not a number: shown as a dash."""
    return None if isinstance(value, float) and value != value else value
