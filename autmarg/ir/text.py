"""The text of a program as values: what the printer writes and the parser reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One site: ``keyword name ~ kind : type in plates of sites reads latents``."""

    keyword: str
    name: str
    kind: str = ""
    type: str = ""
    of: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    plates: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.keyword, _name(self.name)]
        if self.kind:
            parts.append(f"~ {self.kind} : {self.type}")
        for word, names in (("in", self.plates), ("of", self.of), ("reads", self.reads)):
            if names:
                parts.append(f"{word} {', '.join(map(_name, names))}")
        return " ".join(parts)


@dataclass(frozen=True)
class Text:
    """A whole program: its name, plates (name, size, dim), and sites in order."""

    name: str
    plates: tuple[tuple[str, int, int], ...]
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        plates = (f"  plate {_name(n)} size {size} dim {dim}" for n, size, dim in self.plates)
        lines = (f"  {line}" for line in self.lines)
        return "\n".join([f"program {_name(self.name)}", *plates, *lines])


def _name(name: str) -> str:
    """Bare where it reads as an identifier, else quoted."""
    return name if name.isidentifier() else '"' + name.replace('"', '\\"') + '"'
