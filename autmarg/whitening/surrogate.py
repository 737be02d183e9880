"""Gaussian stand-ins for the sites that are not Gaussian, written into a program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from autmarg.ir.edit import written
from autmarg.ir.nodes import Sample, StandIn
from autmarg.ir.program import Program
from autmarg.ir.tape import Tape
from autmarg.whitening.predictors import Key, Likelihood


@dataclass(frozen=True)
class Pseudo:
    """Pseudo-data ỹ ~ N(s, 1/w) for one predictor s.

    Attributes:
        weight: w > 0, of the predictor's shape.
        value: ỹ.
    """

    weight: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Pieces:
    """Connected latents in pieces, each with stand-ins that know the others at the mode.

    The stand-in of a predictor is replaced by one for each piece that reads it. Its mean is the
    predictor with the other pieces' latents at their values at the mode; its pseudo-data are the
    same. No row then reads two pieces, and crossed factors make no dense root.

    Attributes:
        names: of the latents of each.
        centre: values of all of them at the mode.
        turn: what pieces have to do with one another there (:mod:`autmarg.whitening.turn`), where
            it is known.
    """

    names: tuple[tuple[str, ...], ...]
    centre: Mapping[str, np.ndarray]
    turn: np.ndarray | None = None


def with_stand_ins(
    program: Program,
    sites: Sequence[Likelihood],
    pseudo: Mapping[Key, Pseudo] | None = None,
    nodes: int = 0,
    error: float = 0.0,
    pieces: Sequence[Pieces] = (),
) -> Program:
    """The program with a Gaussian site for each predictor in place of each of some sites.

    Args:
        program: normalised.
        sites: that are replaced.
        pseudo: for each; without, they are inputs of the tape by the names that
            :func:`scale_of` and :func:`value_of` give.
        nodes, error: of quadrature, if it is decided.
        pieces: of connected sets of latents that are taken apart.
    """
    instead = {each.site.name: each for each in sites}
    predictors = {p for each in sites for p in each.predictors}
    tape, means = program.tape, {p: [_Mean(p)] for p in predictors}
    for each in pieces:
        tape, own = _by_pieces(tape, predictors, each)
        means |= own
    program = program.replace_nodes(program.nodes, tape)
    writer, written_nodes = _Writer(program, pseudo, nodes, error, means), []
    for node in program.nodes:
        each = instead.get(node.name)
        written_nodes += [node] if each is None else list(writer.stand_ins(each))
    return writer.program.replace_nodes(written_nodes)


def scale_of(key: Key) -> str:
    """The input that is 1/√w of pseudo-data."""
    return f"@scale of pseudo-data {key}"


def value_of(key: Key) -> str:
    """The input that is ỹ of pseudo-data."""
    return f"@pseudo-data {key}"


class _Mean(NamedTuple):
    """The mean of a stand-in: its number, the piece that it reads, and what turns all pieces."""

    number: int
    piece: tuple[str, ...] = ()
    turn: np.ndarray | None = None


@dataclass
class _Writer:
    program: Program
    pseudo: Mapping[Key, Pseudo] | None
    nodes: int
    error: float
    means: Mapping[int, Sequence[_Mean]]

    def stand_ins(self, each: Likelihood) -> Iterator[StandIn]:
        """The Gaussian sites of one site, the first under its name."""
        parts = [(key, mean) for key in each.keys for mean in self.means[key[1]]]
        for k, (key, mean) in enumerate(parts):
            name = each.site.name if k == 0 else f"{each.site.name} (predictor {k + 1})"
            yield self._stand_in(name, each, key, mean)

    def _stand_in(self, name: str, each: Likelihood, key: Key, mean: _Mean) -> StandIn:
        site, tape, (_, predictor) = each.site, self.program.tape, key
        aval = tape.avals[predictor]
        if self.pseudo is None:
            for make in (scale_of, value_of):
                tape = tape.with_input(make(key), aval.shape, aval.dtype)
            numbers = [tape.inputs[make(key)] for make in (scale_of, value_of)]
        else:
            own = self.pseudo[key]
            known = (own.weight**-0.5, own.value)
            tape, numbers = tape.extend(lambda: [jnp.asarray(x, aval.dtype) for x in known], ())
        scale, value = numbers
        tape, spec = written(tape, _normal, (mean.number, scale), aval.shape, 0)
        self.program = self.program.replace_nodes(self.program.nodes, tape)
        return StandIn(
            name, site.parents, site.place, distribution=spec, shape=aval.shape, dtype=aval.dtype,
            value=value, original=site, predictor=predictor, integrated=each.integrated,
            nodes=self.nodes, error=self.error, piece=mean.piece, turn=mean.turn,
        )  # fmt: skip


def _by_pieces(
    tape: Tape, predictors: Iterable[int], pieces: Pieces
) -> tuple[Tape, dict[int, list[_Mean]]]:
    """The tape with predictors that know all pieces but one, and these by their predictor."""
    found: dict[int, list[_Mean]] = {}
    for piece in pieces.names:
        read = [p for p in sorted(predictors) if tape.dependencies([p]) & set(piece)]
        known = {n: x for n, x in pieces.centre.items() if n not in piece}
        tape, numbers = _known(tape, read, known)
        for predictor, number in zip(read, numbers, strict=True):
            found.setdefault(predictor, []).append(_Mean(number, piece, pieces.turn))
    return tape, found


def _known(
    tape: Tape, numbers: Sequence[int], values: Mapping[str, np.ndarray]
) -> tuple[Tape, list[int]]:
    """The tape with values in which some inputs are known, and the numbers of these values."""
    rest = sorted(tape.dependencies(numbers) - values.keys())

    def evaluated(*own: Any) -> list[Any]:
        return tape.evaluate(numbers, {**values, **dict(zip(rest, own, strict=True))})

    return tape.extend(evaluated, [tape.inputs[name] for name in rest])


def _normal(loc: Any, scale: Any) -> dist.Normal:
    return dist.Normal(loc, scale)


def standard_noise(program: Program, name: str, size: int) -> tuple[Program, Sample]:
    """The program, its tape with an input for standard noise, and the site that it is."""
    dtype = jnp.result_type(float)
    tape, spec = written(program.tape, lambda: dist.Normal(jnp.zeros((), dtype), 1), (), (size,), 0)
    tape = tape.with_input(name, (size,), dtype)
    noise = Sample(name, frozenset(), None, distribution=spec, shape=(size,), dtype=dtype)
    return program.replace_nodes(program.nodes, tape), noise
