"""The pass of docs/passes.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    """Print how many parameters every plate has."""

    name = "count"

    def apply(self, program):
        counts = Counter()
        for site in program.latents:
            counts[", ".join(plate.name for plate in site.plates) or "no plate"] += site.size
        print(dict(counts))
        return program
