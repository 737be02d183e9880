"""Where a program has a conjugacy: one latent whose every reader is a child that a rule knows.

A child reads x only through the argument that the rule has it in, is observed, and counts once;
nothing else that has a density reads x. Whatever else there is may depend on other latents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.errors import Refusal
from autmarg.ir.nodes import Deterministic, Factor, Node, Observe, Sample
from autmarg.ir.program import Program
from autmarg.ir.tape import Tape
from autmarg.rules.conjugate import ConjugateMarginal, Statistics, aggregate, summed
from autmarg.rules.families import (
    BINARY,
    COUNT,
    FAMILIES,
    POSITIVE,
    UNIT,
    Expr,
    Family,
    onehot,
)
from autmarg.rules.language import Rule
from autmarg.rules.marginal_likelihood import jax_function, marginal_likelihood
from autmarg.rules.monomial import Interpreter, Monomial, NoMatch
from autmarg.rules.pattern import patterns
from autmarg.rules.proof import prove
from autmarg.rules.reading import BUILDERS, family_names, read
from autmarg.rules.registry import rules


@dataclass(frozen=True, eq=False)
class Conjugacy:
    """A latent with its observed children and the densities that a rule gives.

    Attributes:
        member: the latent.
        observed: its children, in program order.
        density: the marginal of the children, and the member given them.
    """

    member: Sample
    observed: tuple[Observe, ...]
    density: ConjugateMarginal

    @property
    def name(self) -> str:
        """The name of the marginal node."""
        return "marginal(" + ", ".join(s.name for s in self.observed) + ")"

    @property
    def rule(self) -> str:
        """Which rules, and over how many rows, for the plan."""
        found = (f"{s.rule.title} rule, {_pairs(s)}" for s in self.density.children)
        return "; ".join(found)

    @property
    def why(self) -> str:
        """For the plan."""
        return f"conjugate to {', '.join(s.name for s in self.observed)}"


def _pairs(statistics: Statistics) -> str:
    elements = len(np.unique(statistics.rows))
    rows = len(statistics.rows)
    return f"{rows:,} pairs" if rows == elements else f"{rows:,} rows of {elements:,}"


def conjugacies(
    program: Program, names: Collection[str], gone: Mapping[str, str]
) -> tuple[tuple[Conjugacy, ...], dict[str, Refusal]]:
    """Conjugacies among the latents ``names``, and why the others have none.

    Of two latents that share a child the larger one is taken. Latents whose prior no rule has are
    not spoken of.

    Args:
        program: normalised.
        names: latents that may be integrated out.
        gone: sites that belong to a density already → how that is called.
    """
    found, refusals, taken = [], {}, dict(gone)
    order = {n.name: k for k, n in enumerate(program.latents)}
    latents = [n for n in program.latents if n.name in names and not program.obstacles]
    for latent in sorted(latents, key=lambda n: (-n.size, order[n.name])):
        family = next(_prior_families(program, latent), None)
        if family is None:
            continue
        try:
            conjugacy = _conjugacy(program, latent, family, taken)
        except _Refused as refused:
            refusals[latent.name] = refused.refusal
            continue
        found.append(conjugacy)
        taken[latent.name] = f"'{latent.name}', which is integrated out"
        words = f"the marginal that '{latent.name}' is integrated out of"
        taken |= {site.name: words for site in conjugacy.observed}
    return tuple(sorted(found, key=lambda c: order[c.member.name])), refusals


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _prior_families(program: Program, latent: Sample) -> Iterator[Family]:
    """Families of the latent's prior that some rule has for its prior."""
    wanted = {rule.prior.family.name for rule in rules()}
    for name in sorted(wanted & set(_names(program, latent)) & set(BUILDERS)):
        try:
            _arguments(program.tape, latent, FAMILIES[name])
        except NoMatch:
            continue
        yield FAMILIES[name]


def _names(program: Program, node: Sample) -> list[str]:
    names: list[str] = []

    def look(*leaves: Any) -> None:
        names.extend(family_names(node.distribution.unflatten(leaves)))

    jax.eval_shape(look, *(program.tape.avals[v] for v in node.distribution.values))
    return names


def _conjugacy(
    program: Program, latent: Sample, family: Family, taken: Mapping[str, str]
) -> Conjugacy:
    """The conjugacy of one latent.

    Raises:
        _Refused: there is none.
    """
    name, place = latent.name, latent.place

    def refused(reason: str, at: Any = place) -> _Refused:
        words = f"the prior of '{name}' is conjugate to some children, but {reason}"
        return _Refused(Refusal(name, "not conjugate", words, at))

    for condition, reason in (
        (latent.scale is not None, f"handlers.scale is over '{name}'"),
        (latent.scanned, f"'{name}' stands in a scan"),
        (latent.size == 0, f"'{name}' has no elements"),
        (name in latent.parents, f"'{name}' reads its own past"),
    ):
        if condition:
            raise refused(reason)
    if above := sorted(latent.parents & set(taken)):
        raise refused(f"it reads {taken[above[0]]}")
    readers = [c for c in program.children(name) if not isinstance(c, Deterministic)]
    for child in readers:
        if reason := _objection(program, name, child, taken):
            raise refused(reason, child.place)
    if not readers:
        raise refused("no density reads it")
    try:
        tape, parameters, masks = _arguments(program.tape, latent, family)
        if masks:
            raise NoMatch("a mask is over it")
    except NoMatch as obstacle:
        raise refused(str(obstacle)) from obstacle
    matches = []
    for child in readers:
        assert isinstance(child, Observe)
        tape, match = _child(program, tape, latent, family, child, refused)
        matches.append(match)
    density = _density(tape, latent, family, parameters, matches)
    return Conjugacy(latent, tuple(m.site for m in matches), density)


def _objection(
    program: Program, name: str, child: Node, taken: Mapping[str, str]
) -> str:
    """Why a reader of a latent is no child that a rule could speak of, or ""."""
    if isinstance(child, Factor):
        return f"numpyro.factor '{child.name}' reads it"
    if not isinstance(child, Observe):
        return f"'{child.name}', which reads it, is not observed"
    if child.name in taken:
        return f"the density of '{child.name}' is part of {taken[child.name]}"
    if child.scale is not None:
        return f"handlers.scale is over '{child.name}', which reads it"
    if child.scanned:
        return f"'{child.name}', which reads it, stands in a scan"
    latents = {n.name for n in program.latents}
    if program.tape.dependencies([child.value]) & latents:
        return f"the value of '{child.name}' depends on a latent"
    if above := sorted(child.parents & set(taken)):
        return f"'{child.name}' reads {taken[above[0]]}"
    return ""


# A distribution's arguments, on the tape.


def _rows(node: Sample, family: Family) -> tuple[int, ...]:
    """The shape of a site's rows: without the coordinates of vectors."""
    return node.shape[:-1] if family.vector and not family.labels else node.shape


def _arguments(
    tape: Tape, node: Sample, family: Family
) -> tuple[Tape, list[int], list[np.ndarray]]:
    """The tape with the arguments of a site's distribution, their numbers, and its masks.

    Arguments are of the rows' shape; those of a family of vectors have an axis more, of length one
    where they are no vectors.

    Raises:
        NoMatch: the distribution is not of the family, or a mask is not known.
    """
    spec, masks = node.distribution, []
    constants = {v: tape.constants[v] for v in spec.values if v in tape.constants}
    free = [v for v in dict.fromkeys(spec.values) if v not in constants]

    def arguments(*arrays: Any) -> list[Any]:
        values = {**constants, **dict(zip(free, arrays, strict=True))}
        found = read(spec.unflatten(values[v] for v in spec.values))
        given = found.arguments(family.name) if family.name in found.families else None
        if given is None:
            raise NoMatch(f"'{node.name}' is no {family.name}")
        for mask, axes in found.masks:
            if not isinstance(mask, np.ndarray | bool):
                raise NoMatch(f"the mask over '{node.name}' is traced or depends on a latent")
            spread = np.reshape(mask, (*np.shape(mask), *(1,) * (axes - len(found.base.event_shape))))
            masks.append(np.broadcast_to(spread, _rows(node, family)))
        rows, out = _rows(node, family), []
        for (name, _), value in zip(family.parameters, given, strict=True):
            value = jnp.asarray(value)
            if family.vector and name not in family.vectors:
                value = value[..., None]
            length = value.shape[-1:] if family.vector else ()
            out.append(jnp.broadcast_to(value, (*rows, *length)))
        return out

    tape, numbers = tape.extend(arguments, free)
    return tape, numbers, masks


# One child.


@dataclass(frozen=True, eq=False)
class _Match:
    """A child under a rule: numbers of its arguments, and which of its rows count."""

    site: Observe
    rule: Rule
    arguments: list[int]
    keep: np.ndarray


def _child(
    program: Program, tape: Tape, latent: Sample, family: Family, child: Observe, refused: Any
) -> tuple[Tape, _Match]:
    """The first rule that fits."""
    own, words = _names(program, child), ""
    for rule in rules():
        if rule.prior.family != family or rule.child.family.name not in own:
            continue
        try:
            after, arguments, masks = _arguments(tape, child, rule.child.family)
            keep = np.ones(_rows(child, rule.child.family), bool)
            for mask in masks:
                keep = keep & mask
            match = _Match(child, rule, arguments, keep)
            _trial(after, latent, match)
        except NoMatch as obstacle:
            where = f" ({obstacle.equation.place})" if obstacle.equation is not None else ""
            words = f"the {rule.title} rule does not fit '{child.name}': {obstacle}{where}"
            continue
        prove(rule)
        return after, match
    kind = child.distribution.kind
    raise refused(words or f"no rule has '{child.name}', a {kind}, for its child", child.place)


def _trial(tape: Tape, latent: Sample, match: _Match) -> None:
    """Look at everything that the rule needs, abstractly.

    Raises:
        NoMatch: the child does not fit.
    """
    names = _inputs(tape, [*match.arguments, match.site.value], latent.name)

    def look(*arrays: Any) -> None:
        _data(tape, latent, match, dict(zip(names, arrays, strict=True)))

    jax.eval_shape(look, *(tape.avals[tape.inputs[n]] for n in names))


def _inputs(tape: Tape, numbers: list[int], x: str) -> list[str]:
    return sorted(tape.dependencies(numbers) - {x})


@dataclass(frozen=True, eq=False)
class _Data:
    """The rows of a child, those of one element of x after those of the one before.

    Attributes:
        y: [n], [n, K] for vectors, or labels [n].
        others: what else the rule's child has, by its symbols, [n] or [n, 1].
        rows: the element of x that each reads, [n].
    """

    y: Any
    others: dict[Expr, Any]
    rows: np.ndarray


def _data(tape: Tape, latent: Sample, match: _Match, values: Mapping[str, Any]) -> _Data:
    """Interpret the arguments of a child.

    Raises:
        NoMatch: one is not what the rule has, or the data are not what the family has.
    """
    prior, child = match.rule.prior.family, match.rule.child.family
    positive, unit = prior.support in (POSITIVE, UNIT), prior.support == UNIT
    interpreter = Interpreter(tape, latent.name, values, positive, unit)
    width = latent.shape[-1] if prior.vector else 0
    rows, others = None, {}
    names = [name for name, _ in child.parameters]
    for name, number, pattern in zip(names, match.arguments, patterns(match.rule), strict=True):
        try:
            value = interpreter.read(number)
            others |= pattern.match(value)
        except NoMatch as obstacle:
            words = f"in its argument '{name}', '{latent.name}' {obstacle}"
            through = f"'{latent.name}' enters its argument '{name}' {obstacle}"
            raise NoMatch(through if obstacle.equation else words, obstacle.equation) from obstacle
        if isinstance(value, Monomial):
            read = _element_of(value, width)
            if rows is not None and (rows != read).any():
                raise NoMatch(f"its arguments read different elements of '{latent.name}'")
            rows = read
    assert rows is not None
    y = interpreter.read(match.site.value)
    y = (np if isinstance(y, np.ndarray) else jnp).broadcast_to(y, match.site.shape)
    order = _order(rows, match.keep)
    y = _picked(y, order, match.keep.ndim)
    others = {s: _picked(v, order, match.keep.ndim) for s, v in others.items()}
    _check(match.rule, y, others, width)
    return _Data(y, others, rows.reshape(-1)[order])


def _element_of(value: Monomial, width: int) -> np.ndarray:
    """Which row of x each row reads: with vectors (of ``width``), whole ones in their order."""
    if not width:
        return value.index
    rows, coordinates = np.divmod(value.index, width)
    whole = coordinates.shape[-1] == width and (coordinates == np.arange(width)).all()
    if not whole or (rows != rows[..., :1]).any():
        raise NoMatch("it reads other coordinates than one whole vector in its order")
    return rows[..., 0]


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
            raise NoMatch(f"{name} is not {kind} everywhere")
    if child.labels and isinstance(y, np.ndarray) and y.size and y.max() >= width:
        raise NoMatch(f"its value is not below {width} everywhere")
    high = child.limits(rule.child.variable, rule.child.arguments)[1]
    bound = others.get(high) if high is not None else None
    if isinstance(bound, np.ndarray) and isinstance(y, np.ndarray) and (y > bound).any():
        raise NoMatch(f"its value is above {high} somewhere")


def _is(kind: str, value: np.ndarray) -> bool:
    holds = {
        POSITIVE: lambda v: v > 0,
        UNIT: lambda v: (v > 0) & (v < 1),
        COUNT: lambda v: (v >= 0) & (v == np.floor(v)),
        BINARY: lambda v: (v == 0) | (v == 1),
    }.get(kind, np.isfinite)
    return bool(np.all(holds(value)))


# The densities.


def _density(
    tape: Tape, latent: Sample, family: Family, parameters: list[int], matches: list[_Match]
) -> ConjugateMarginal:
    """Write the statistics of all children onto a tape of their own, and add up what is known."""
    needed = [v for m in matches for v in (*m.arguments, m.site.value)]
    names = _inputs(tape, [*needed, *parameters], latent.name)
    elements = int(np.prod(_rows(latent, family)))
    structure: list[tuple[int, int, np.ndarray]] = []

    def statistics(*arrays: Any) -> list[Any]:
        values = dict(zip(names, arrays, strict=True))
        out = [jnp.asarray(v, jnp.result_type(float)) for v in tape.evaluate(parameters, values)]
        out = [v.reshape(elements, *v.shape[len(_rows(latent, family)) :]) for v in out]
        for match in matches:
            data = _data(tape, latent, match, values)
            aggregates, own = _statistics(match.rule, data, elements, latent.shape[-1:])
            structure.append((len(aggregates), len(own), data.rows))
            out += [*aggregates, *own]
        return out

    tape, numbers = tape.extend(statistics, [tape.inputs[n] for n in names])
    each, children = iter(numbers), []
    before = tuple(next(each) for _ in parameters)
    for match, (aggregates, own, rows) in zip(matches, structure, strict=True):
        some = tuple(next(each) for _ in range(aggregates))
        rest = tuple(next(each) for _ in range(own))
        children.append(Statistics(match.rule, some, rest, rows))
    folded = tape.folded(numbers)
    return ConjugateMarginal(latent.name, latent.shape, family, before, tuple(children), folded)


def _statistics(
    rule: Rule, data: _Data, elements: int, width: tuple[int, ...]
) -> tuple[list[Any], list[Any]]:
    """A rule's aggregates, and what it needs of the rows themselves."""
    float_ = jnp.result_type(float)
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
        found.append(aggregate(statistic, terms, rows, elements, vector, values[0]))
    formula = marginal_likelihood(rule)
    if formula.at_one_x:
        return found, values
    return found, [summed(formula.child(*values), values[0])]


def _counted(labels: Any, rows: np.ndarray, elements: int, width: int) -> Any:
    """How often each element of x has each label."""
    cells = rows * width + jnp.asarray(labels, int)
    ones = jnp.ones(len(rows), jnp.result_type(float))
    return jax.ops.segment_sum(ones, cells, elements * width).reshape(elements, width)
