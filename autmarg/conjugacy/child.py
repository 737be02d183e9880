"""One child of a latent, read as a rule has it: its rows, and what each of them says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.conjugacy.families import BINARY, COUNT, POSITIVE, UNIT, Expr
from autmarg.conjugacy.language import Rule
from autmarg.conjugacy.monomial import Monomial, NoMatch
from autmarg.conjugacy.monomial_interpreter import MonomialInterpreter
from autmarg.conjugacy.pattern import patterns
from autmarg.conjugacy.reading import arguments_of, rows_of
from autmarg.ir.nodes import Observe, Sample
from autmarg.ir.tape import Tape


@dataclass(frozen=True, eq=False)
class Match:
    """A child under a rule: numbers of its arguments, which of its rows count, and what its class
    adds to the family's density."""

    site: Observe
    rule: Rule
    arguments: list[int]
    keep: np.ndarray
    off_by: Callable[..., Any] | None


def fit(tape: Tape, latent: Sample, site: Observe, rule: Rule, off_by: Any) -> tuple[Tape, Match]:
    """A child under a rule, with the tape that has its arguments.

    Raises:
        NoMatch: the rule does not fit.
    """
    family = rule.child.family
    tape, arguments, masks = arguments_of(tape, site, family)
    keep = np.ones(rows_of(site, family), bool)
    for mask in masks:
        keep = keep & mask
    match = Match(site, rule, arguments, keep, off_by)
    _trial(tape, latent, match)
    return tape, match


def _trial(tape: Tape, latent: Sample, match: Match) -> None:
    """Look at everything that the rule needs, abstractly.

    Raises:
        NoMatch: the child does not fit.
    """
    names = inputs_of(tape, [*match.arguments, match.site.value], latent.name)

    def look(*arrays: Any) -> None:
        data_of(tape, latent, match, dict(zip(names, arrays, strict=True)))

    jax.eval_shape(look, *(tape.avals[tape.inputs[n]] for n in names))


def inputs_of(tape: Tape, numbers: list[int], x: str) -> list[str]:
    """Names of what values depend on, other than x."""
    return sorted(tape.dependencies(numbers) - {x})


@dataclass(frozen=True, eq=False)
class Data:
    """The rows of a child, those of one element of x after those of the one before.

    Attributes:
        y: [n], [n, K] for vectors, or labels [n].
        others: what else the rule's child has, by its symbols, [n] or [n, 1].
        rows: the element of x that each reads, [n].
        order: their places among all rows of the site, flattened, [n].
    """

    y: Any
    others: dict[Expr, Any]
    rows: np.ndarray
    order: np.ndarray


def data_of(tape: Tape, latent: Sample, match: Match, values: Mapping[str, Any]) -> Data:
    """Interpret the arguments of a child.

    Raises:
        NoMatch: one is not what the rule has, or the data are not what the family has.
    """
    prior, child = match.rule.prior.family, match.rule.child.family
    positive, unit = prior.support in (POSITIVE, UNIT), prior.support == UNIT
    interpreter = MonomialInterpreter(tape, latent.name, values, positive, unit)
    width = latent.shape[-1] if prior.vector else 0
    rows, others, orders = None, {}, None
    names = [name for name, _ in child.parameters]
    for name, number, pattern in zip(names, match.arguments, patterns(match.rule), strict=True):
        try:
            value = interpreter.read(number)
            others |= pattern.match(value)
        except NoMatch as mismatch:
            words = f"with x = '{latent.name}', its argument '{name}' {mismatch}"
            through = f"its argument '{name}' reads '{latent.name}' {mismatch}"
            words = through if mismatch.equation else words
            raise NoMatch(words, mismatch.equation, near=mismatch.near) from mismatch
        if isinstance(value, Monomial):
            read, orders = _element_of(value, width)
            if rows is not None and (rows != read).any():
                raise NoMatch(
                    f"its arguments read different elements of '{latent.name}'", near=True
                )
            rows = read
    assert rows is not None
    y = interpreter.read(match.site.value)
    y = (np if isinstance(y, np.ndarray) else jnp).broadcast_to(y, match.site.shape)
    if orders is not None:
        y = _in_order(y, orders, child.labels)
    order = _order(rows, match.keep & ~_sure(match.rule, y, others))
    y = _picked(y, order, match.keep.ndim)
    others = {s: _picked(v, order, match.keep.ndim) for s, v in others.items()}
    _check(match.rule, y, others, width)
    return Data(y, others, rows.reshape(-1)[order], order)


def _sure(rule: Rule, y: Any, others: Mapping[Expr, Any]) -> np.ndarray:
    """Rows whose density is one for every x: zeros observed under a known factor of zero, where the
    child's family has that (no exposure, no events)."""
    child, sure = rule.child, np.zeros((), bool)
    for symbol, kind in rule.others:
        density = child.family.log_density(child.variable, child.arguments)
        known = kind == POSITIVE and all(isinstance(v, np.ndarray) for v in (y, others[symbol]))
        if known and density.subs(child.variable, 0).subs(symbol, 0) == 0:
            sure = sure | ((y == 0) & (others[symbol] == 0))
    return sure


def _element_of(value: Monomial, width: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Which row of x each row reads, and with vectors (of ``width``), whole ones, their order:
    which coordinate stands at each place; None where that is their own."""
    if not width:
        return value.index, None
    rows, coordinates = np.divmod(value.index, width)
    whole = coordinates.shape[-1] == width and (np.sort(coordinates) == np.arange(width)).all()
    if not whole or (rows != rows[..., :1]).any():
        raise NoMatch("it does not read one whole vector")
    own = (coordinates == np.arange(width)).all()
    return rows[..., 0], None if own else coordinates


def _in_order(y: Any, orders: np.ndarray, labels: bool) -> Any:
    """Values as those of a child that reads the vector in its own order."""
    module: Any = np if isinstance(y, np.ndarray) else jnp
    if labels:
        outside = (y < 0) | (y >= orders.shape[-1])  # no label: what follows says so
        place = module.where(outside, 0, y).astype(int)
        found = module.take_along_axis(module.asarray(orders), place[..., None], -1)[..., 0]
        return module.where(outside, y, found)
    return module.take_along_axis(y, module.asarray(np.argsort(orders)), -1)


def _order(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The rows that count, sorted by the element that they read."""
    kept = np.flatnonzero(keep)
    return kept[np.argsort(rows.reshape(-1)[kept], kind="stable")]


def _picked(value: Any, order: np.ndarray, axes: int) -> Any:
    """Rows in that order, the axes of rows flattened to one."""
    flat = value.reshape(-1, *value.shape[axes:])
    same = len(order) == len(flat) and (order == np.arange(len(order))).all()
    return flat if same else flat[order]


def _check(rule: Rule, y: Any, others: Mapping[Expr, Any], width: int) -> None:
    """Known data lie in the child's support, and what else it has is what the rule says.

    Raises:
        NoMatch: they do not.
    """
    child = rule.child.family
    named = [(s.name, kind, others[s]) for s, kind in rule.others]
    for name, kind, value in [("its value", child.support, y), *named]:
        if isinstance(value, np.ndarray) and not _is(kind, value):
            raise NoMatch(f"{name} is not {kind} everywhere", near=True)
    if child.labels and isinstance(y, np.ndarray) and y.size and y.max() >= width:
        raise NoMatch(f"its value is not below {width} everywhere", near=True)
    high = child.limits(rule.child.variable, rule.child.arguments)[1]
    bound = others.get(high) if high is not None else None
    if isinstance(bound, np.ndarray) and isinstance(y, np.ndarray) and (y > bound).any():
        raise NoMatch(f"its value is above {high} somewhere", near=True)


def _is(kind: str, value: np.ndarray) -> bool:
    holds = {
        POSITIVE: lambda v: v > 0,
        UNIT: lambda v: (v > 0) & (v < 1),
        COUNT: lambda v: (v >= 0) & (v == np.floor(v)),
        BINARY: lambda v: (v == 0) | (v == 1),
    }.get(kind, np.isfinite)
    return bool(np.all(holds(value) & np.isfinite(value)))
