"""The sufficient statistics of all children of a latent, on a tape of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.conjugacy.child import Data, Match, data_of, inputs_of
from autmarg.conjugacy.conjugate import summed
from autmarg.conjugacy.families import Family, onehot
from autmarg.conjugacy.language import Aggregate, Largest, Smallest, SumOver
from autmarg.conjugacy.marginal_likelihood import jax_function, marginal_likelihood
from autmarg.conjugacy.reading import rows_of
from autmarg.conjugacy.update import ChildStatistics, ConjugateUpdate, RowStatistics
from autmarg.ir.nodes import Sample
from autmarg.ir.tape import Tape


def update_of(
    tape: Tape, latent: Sample, family: Family, parameters: list[int], matches: list[Match]
) -> ConjugateUpdate:
    """Write the statistics of all children onto a tape of their own, and add up what is known."""
    needed = [v for m in matches for v in (*m.arguments, m.site.value)]
    names = inputs_of(tape, [*needed, *parameters], latent.name)
    elements = int(np.prod(rows_of(latent, family)))

    def statistics(*arrays: Any) -> tuple[list[tuple[int, int, np.ndarray]], list[Any]]:
        structure, values = [], dict(zip(names, arrays, strict=True))
        out = [jnp.asarray(v, jnp.result_type(float)) for v in tape.evaluate(parameters, values)]
        out = [v.reshape(elements, *v.shape[len(rows_of(latent, family)) :]) for v in out]
        for match in matches:
            data = data_of(tape, latent, match, values)
            aggregates, own = _statistics(match, data, elements, latent.shape[-1:])
            structure.append((len(aggregates), len(own), data.rows))
            out += [*aggregates, *own]
        return structure, out

    tape, numbers, structure = tape.extend_staged(statistics, [tape.inputs[n] for n in names])
    each, children = iter(numbers), []
    before = tuple(next(each) for _ in parameters)
    for match, (aggregates, own, rows) in zip(matches, structure, strict=True):
        some = tuple(next(each) for _ in range(aggregates))
        rest = tuple(next(each) for _ in range(own))
        children.append(ChildStatistics(match.rule, some, rest, rows))
    folded = tape.folded(numbers)
    return ConjugateUpdate(
        latent.name, latent.shape, family, before, tuple(children), folded,
        each=lambda: _row_by_row(tape, latent, matches),
    )  # fmt: skip


def _row_by_row(
    tape: Tape, latent: Sample, matches: list[Match]
) -> tuple[Tape, tuple[RowStatistics, ...]]:
    """The statistics of single rows, on a tape that has them."""
    names = inputs_of(tape, [v for m in matches for v in (*m.arguments, m.site.value)], latent.name)

    def statistics(*arrays: Any) -> tuple[list[tuple[int, int, Data]], list[Any]]:
        values = dict(zip(names, arrays, strict=True))
        read, out = [], []
        for match in matches:
            data = data_of(tape, latent, match, values)
            terms, own = _terms(match, data, latent.shape[-1:])
            read.append((len(terms), len(own), data))
            out += [*terms, *own]
        return read, out

    tape, numbers, read = tape.extend_staged(statistics, [tape.inputs[n] for n in names])
    each, found = iter(numbers), []
    for match, (terms, own, data) in zip(matches, read, strict=True):
        some, rest = (tuple(next(each) for _ in range(n)) for n in (terms, own))
        shape = match.keep.shape
        found.append(
            RowStatistics(match.site.name, match.rule, some, rest, data.rows, data.order, shape)
        )
    return tape.folded(numbers), tuple(found)


def _terms(match: Match, data: Data, width: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """What each row adds to a rule's aggregates, and what the rule needs of the rows."""
    rule, float_, y = match.rule, jnp.result_type(float), data.y
    if rule.child.family.labels:
        y = jax.nn.one_hot(jnp.asarray(y), width[0])
    arguments = (rule.child.variable, *(s for s, _ in rule.others))
    values = [jnp.asarray(v, float_) for v in (y, *(data.others[s] for s in arguments[1:]))]
    identity = np.arange(len(data.rows))
    terms = [
        _aggregate(
            each, jax_function(arguments, each.args[0])(*values), identity, len(identity),
            rule.prior.family.vector, values[0],
        )
        for each in rule.aggregates
    ]  # fmt: skip
    none = jnp.zeros(len(identity), float_)
    own = none if match.off_by is None else _each(match.off_by(*values), none)
    formula = marginal_likelihood(rule)
    if formula.at_one_x:
        return terms, [own, *values]
    return terms, [own + _each(formula.child(*values), none)]


def _each(terms: Any, none: Any) -> Any:
    """One number for each row, from one for each, [n] or [n, 1], or one for all."""
    terms = jnp.asarray(terms, none.dtype)
    return jnp.broadcast_to(terms.reshape(terms.shape[:1]) if terms.ndim else terms, none.shape)


def _statistics(
    match: Match, data: Data, elements: int, width: tuple[int, ...]
) -> tuple[list[Any], list[Any]]:
    """A rule's aggregates, and what it needs of the rows themselves."""
    rule, float_ = match.rule, jnp.result_type(float)
    y, rows, vector = data.y, data.rows, rule.prior.family.vector
    if rule.child.family.labels:
        if [a.args[0] for a in rule.aggregates] == [onehot(rule.child.variable)]:
            return [_counted(y, rows, elements, width[0])], [jnp.zeros((), float_)]
        y = jax.nn.one_hot(jnp.asarray(y), width[0])
    arguments = (rule.child.variable, *(s for s, _ in rule.others))
    values = [jnp.asarray(v, float_) for v in (y, *(data.others[s] for s in arguments[1:]))]
    found = []
    for statistic in rule.aggregates:
        terms = jax_function(arguments, statistic.args[0])(*values)
        found.append(_aggregate(statistic, terms, rows, elements, vector, values[0]))
    own = jnp.zeros((), float_) if match.off_by is None else jnp.sum(match.off_by(*values))
    formula = marginal_likelihood(rule)
    if formula.at_one_x:
        return found, [own, *values]
    return found, [own + summed(formula.child(*values), values[0])]


def _aggregate(
    statistic: Aggregate, terms: Any, rows: np.ndarray, elements: int, vector: bool, like: Any
) -> Any:
    """A sufficient statistic of each element of x from one term for each row, sorted by element."""
    terms = jnp.asarray(terms, jnp.result_type(float))
    shape = (
        like.shape if terms.ndim and terms.shape[-1] != 1 else (*like.shape[:1], *([1] * vector))
    )
    terms = jnp.broadcast_to(terms, shape)
    if len(rows) == elements and (rows == np.arange(elements)).all():
        return terms
    return _SEGMENTS[type(statistic)](terms, rows, elements, indices_are_sorted=True)


_SEGMENTS: dict[type, Callable[..., Any]] = {
    SumOver: jax.ops.segment_sum,
    Largest: jax.ops.segment_max,
    Smallest: jax.ops.segment_min,
}


def _counted(labels: Any, rows: np.ndarray, elements: int, width: int) -> Any:
    """How often each element of x has each label."""
    cells = rows * width + jnp.asarray(labels, int)
    ones = jnp.ones(len(rows), jnp.result_type(float))
    return jax.ops.segment_sum(ones, cells, elements * width).reshape(elements, width)
