"""A program in text, one line a site, in the syntax of ``grammar/ir.lark``.

The text names what each site is, its shape, its plates and what it reads; expressions and data
stay on the tape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from autmarg.ir.nodes import (
    Ancestral,
    Deterministic,
    Factor,
    Marginal,
    Node,
    NonCentred,
    Observe,
    Param,
    Recover,
    Sample,
)
from autmarg.ir.text import Line, Text

_KEYWORDS = {Observe: "observe", Ancestral: "ancestral", NonCentred: "noncentred"}


def print_program(program: Any) -> str:
    """The program's text."""
    return str(describe(program))


def describe(program: Any) -> Text:
    """The program as lines of text with named fields."""
    plates = tuple((p.name, p.size, p.dim) for p in program.plates)
    return Text(program.name, plates, tuple(_line(node) for node in program.nodes))


def _line(node: Node) -> Line:
    reads = tuple(sorted(node.parents))
    plates = tuple(p.name for p in node.plates)
    if isinstance(node, Marginal):
        of = (*(site.name for site in node.observed), *node.children)
        return Line("marginal", node.name, of=of, reads=reads)
    if isinstance(node, Recover):
        return Line("recover", node.name, of=node.integrated, reads=reads)
    if isinstance(node, Sample):
        kind, type_ = node.distribution.kind, _type(node)
        of = (node.base.name,) if isinstance(node, NonCentred) else ()
        return Line(_KEYWORDS.get(type(node), "sample"), node.name, kind, type_, of, reads, plates)
    keyword = {Deterministic: "deterministic", Factor: "factor", Param: "param"}[type(node)]
    return Line(keyword, node.name, reads=reads, plates=plates)


def _type(node: Sample) -> str:
    return f"{np.dtype(node.dtype).name}[{_commas(node.shape)}]"


def _commas(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
