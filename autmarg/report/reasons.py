"""Why a latent is sampled: the reason, at the user's line, and what would change it."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from autmarg.compat.jaxprs import Op
from autmarg.errors import WHOLE_MODEL, Place, Refusal, named

# How users spell what JAX calls otherwise.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    Op.LOGISTIC: ("sigmoid", "expit"), Op.MAX: ("maximum", "relu", "clip"), Op.MIN: ("minimum",),
    Op.SELECT_N: ("where", "select"), Op.SORT: ("sort", "argsort", "median"),
    Op.DOT_GENERAL: ("dot",), Op.CLAMP: ("clip",), Op.CONVERT_ELEMENT_TYPE: ("astype",),
    Op.SQUARE: ("square",),
}  # fmt: skip
_OPERATORS: dict[str, tuple[type[ast.AST], ...]] = {
    Op.ADD: (ast.Add,), Op.SUB: (ast.Sub,), Op.MUL: (ast.Mult,), Op.DIV: (ast.Div,),
    Op.INTEGER_POW: (ast.Pow,), Op.SQUARE: (ast.Pow,), Op.POW: (ast.Pow,),
    Op.DOT_GENERAL: (ast.MatMult,), Op.REM: (ast.Mod,), Op.FLOOR: (ast.FloorDiv,),
    Op.NEG: (ast.USub,), Op.LT: (ast.Lt,), Op.LE: (ast.LtE,), Op.GT: (ast.Gt,), Op.GE: (ast.GtE,),
    Op.EQ: (ast.Eq,), Op.NE: (ast.NotEq,),
}  # fmt: skip


def explain(refusals: Iterable[Refusal]) -> str:
    """Every refusal in a paragraph, with the user's line and a caret under the expression."""
    return "\n\n".join("\n".join(_paragraph(refusal)) for refusal in refusals)


def collapsed(refusals: Iterable[Refusal]) -> list[str]:
    """The reasons as sentences; what holds for several sites is said once."""
    whole: dict[str, None] = {}
    sites: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        if refusal.rule == WHOLE_MODEL:
            whole[f"{refusal}."] = None
            continue
        key = str(replace(refusal, own=None, use="")).replace(f"'{refusal.site}'", "'·'")
        if refusal.place == refusal.own and refusal.place is not None:
            key = key.replace(f" ({refusal.place})", "")
        sites.setdefault(key, []).append(refusal)
    return [*whole, *(_sentence(*found) for found in sites.values())]


def _sentence(first: Refusal, *others: Refusal) -> str:
    text, about = str(first), f"'{first.site}'"
    if about not in text:
        text = f"{about}: {text}"
    if not others:
        return f"{text}."
    names: dict[str, list[str]] = {}
    for other in others:
        names.setdefault("" if other.use == first.use else other.use, []).append(other.site)
    clauses = (
        named(n) + (f", {'each of ' if n[1:] else ''}which {use}" if use else "")
        for use, n in names.items()
    )
    return f"{text}. The same holds for {'; '.join(clauses)}."


def _paragraph(refusal: Refusal) -> Iterator[str]:
    yield f"{refusal.site} is sampled"
    yield f"  because  {replace(refusal, remedy='')}"
    if refusal.place is not None:
        yield f"  at       {refusal.place}"
        yield from (f"           {line}" for line in excerpt(refusal.place, refusal.culprit))
    if refusal.nearest not in ("linear Gaussian", "conjugacy"):
        yield f"  nearest  the {refusal.nearest} rule"
    if advice := refusal.remedy or refusal.needed:
        yield f"  to do    {advice}"


def excerpt(place: Place, culprit: str) -> list[str]:
    """The user's line and carets under what stands in the way; nothing without the source."""
    line = linecache.getline(place.file, place.line).rstrip("\n")
    if not line.strip():
        return []
    start, end = _span(place, culprit) or (len(line) - len(line.lstrip()), len(line))
    left = len(line) - len(line.lstrip())
    return [line.strip(), " " * (start - left) + "^" * max(end - start, 1)]


def _span(place: Place, culprit: str) -> tuple[int, int] | None:
    """Columns of the expression on a line that a site's name or a primitive stands for."""
    here = [n for n in _expressions(place.file) if n.lineno == place.line]
    found = [n for n in here if _is(n, culprit)] or [n for n in here if isinstance(n, ast.Call)]
    if not found:
        return None
    node = min(found, key=lambda n: (n.end_lineno or 0, (n.end_col_offset or 0) - n.col_offset))
    if isinstance(node, ast.Call) and _names_site(node, culprit) and len(node.args) > 1:
        node = node.args[1] if node.args[1].lineno == place.line else node
    text = linecache.getline(place.file, place.line).encode()
    end = node.end_col_offset if node.end_lineno == node.lineno else len(text.rstrip())
    return len(text[: node.col_offset].decode()), len(text[:end].decode())


def _is(node: ast.expr, culprit: str) -> bool:
    if isinstance(node, ast.Call):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return called in (culprit, *_SPELLINGS.get(culprit, ())) or _names_site(node, culprit)
    operators = [getattr(node, "op", None), *getattr(node, "ops", ())]
    return any(isinstance(op, _OPERATORS.get(culprit, ())) for op in operators)


def _names_site(node: ast.Call, culprit: str) -> bool:
    first = node.args[0] if node.args else None
    return isinstance(first, ast.Constant) and first.value == culprit


@lru_cache(maxsize=16)
def _expressions(file: str) -> tuple[ast.expr, ...]:
    """All expressions of a source file; none where it cannot be read."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # a notebook's cell with magic commands
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.expr))
