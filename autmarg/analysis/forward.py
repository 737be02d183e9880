"""States that few latents drive: one pass over the steps gives their coefficients.

The states v of a loop follow v_t = A_t v_{t-1} + M_t x + c_t. An element of v that depends on few
latents x (initial values, coefficients of known inputs) needs no column: with v_t = J_t x + k_t,

    J_t = A_t J_{t-1} + M_t,    k_t = A_t k_{t-1} + c_t,

and rows that read v read x through J. Latents that no element has in common share a column of J,
as in compressed Jacobians (Curtis, Powell & Reid 1974, J. Inst. Maths Applics 13): the series of a
plate go side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.analysis.domain import Affine, Lookup, Term

NEAR = 3  # steps over which a chain may read one block of another site and take it along
_MANY = 512  # latents that one element may read, at most

_Latent = tuple[str, int]


class _Reads(NamedTuple):
    """Summands known · factor · source [n] in the means of (step, element); ``factor`` is None
    where all are one."""

    step: np.ndarray
    element: np.ndarray
    column: np.ndarray
    known: np.ndarray
    factor: Any


@dataclass(frozen=True, eq=False)
class Loop:
    """The states of a loop and their means.

    Attributes:
        steps: T, the number of steps.
        step, element: [n] of each element of each state, by the state's name; elements of one
            step are numbered through all states.
        means: of each state, over the states a step before, latents and constants.
        kept: flattened values of sites that are no columns of the system.
    """

    steps: int
    step: Mapping[str, np.ndarray]
    element: Mapping[str, np.ndarray]
    means: Mapping[str, Affine]
    kept: Mapping[str, Any]

    @cached_property
    def elements(self) -> int:
        """Number of elements of one step."""
        return sum(len(e) for e in self.element.values()) // self.steps

    @cached_property
    def reads(self) -> list[tuple[str | None, _Reads]]:
        """What the means read, term by term, with the site; None for constants."""
        found = []
        for name, mean in self.means.items():
            for term in mean.terms:
                whole = term.arrays(mean.size)
                row, k = np.nonzero(whole.known)
                factor = None
                if whole.lookup is not None:
                    factor = whole.lookup.base[whole.lookup.index[row, k]]
                place = self.step[name][row], self.element[name][row]
                reads = _Reads(*place, whole.column[row, k], whole.known[row, k], factor)
                found.append((term.site, reads))
        return found

    @cached_property
    def driven(self) -> dict[int, tuple[_Latent, ...]]:
        """The latents that drive each element, of the elements for which that saves work."""
        import networkx as nx  # slow to import

        graph, direct, far = nx.DiGraph(), {}, {}
        graph.add_nodes_from(range(self.elements))
        for site, reads in self.reads:
            if site is not None and site in self.means:
                source, element = self.element[site][reads.column], reads.element
                graph.add_edges_from(
                    np.unique(np.stack([source, element], axis=1), axis=0).tolist()
                )
            elif site is not None and site not in self.kept:
                for e in np.unique(reads.element):
                    columns = np.unique(reads.column[reads.element == e]).tolist()
                    direct.setdefault(int(e), set()).update((site, c) for c in columns)
                far |= _far_apart(site, reads)
        found: dict[int, tuple[_Latent, ...]] = {}
        condensed = nx.condensation(graph)
        members_of = condensed.nodes(data="members")
        above: dict[int, tuple[set[_Latent], int]] = {}
        for part in nx.topological_sort(condensed):
            members, before = members_of[part], list(condensed.predecessors(part))
            parents = [above[p] for p in before]
            latents = set().union(*(direct.get(e, ()) for e in members), *(p[0] for p in parents))
            width = len(members) + sum(p[1] for p in parents)
            above[part] = latents, width
            known = all(e in found for p in before for e in members_of[p])
            if known and _saves(latents, width, far):
                for e in members:
                    found[int(e)] = tuple(sorted(latents))
        return found

    def rest(self, name: str) -> np.ndarray:
        """[n] which elements of a state stay columns."""
        return ~np.isin(self.element[name], list(self.driven))

    def written(self) -> dict[str, Affine]:
        """The states over latents; elements that stay columns are zero."""
        colour, width = _coloured(self.driven)
        values = _forward(self, colour, width)
        slot = {e: i for i, e in enumerate(sorted(self.driven))}
        result = {}
        for name, mean in self.means.items():
            rows = np.flatnonzero(~self.rest(name))
            place = np.array([slot[e] for e in self.element[name][rows].tolist()], np.int64)
            first = (self.step[name][rows] * len(slot) + place) * (width + 1)
            at = np.zeros(mean.size, np.int64)
            used = np.zeros(mean.size, bool)
            at[rows], used[rows] = first, True
            terms = [_term(None, np.zeros((1, 1), np.int32), at[:, None], used[:, None], values)]
            sites = sorted({site for latents in self.driven.values() for site, _ in latents})
            for site in sites:
                column, where, has = self._columns(name, site, at, used, colour)
                if has.any():
                    terms.append(_term(site, column, where, has, values))
            result[name] = Affine(mean.shape, mean.dtype, tuple(terms))
        return result

    def _columns(
        self, name: str, site: str, at: np.ndarray, used: np.ndarray, colour: Mapping[_Latent, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns of a site that each element of a state reads, where their coefficients stand,
        and which places are filled: [n, K]."""
        own = {e: [c for s, c in latents if s == site] for e, latents in self.driven.items()}
        most = max(map(len, own.values()))
        column, offset = np.zeros((2, self.elements, most), np.int64)
        has = np.zeros((self.elements, most), bool)
        for e, columns in own.items():
            column[e, : len(columns)] = columns
            offset[e, : len(columns)] = [1 + colour[site, c] for c in columns]
            has[e, : len(columns)] = True
        e = self.element[name]
        return column[e].astype(np.int32), at[:, None] + offset[e], has[e] & used[:, None]


def _far_apart(site: str, reads: _Reads) -> dict[_Latent, bool]:
    """Whether each column is read at steps that are not next to each other."""
    first = np.full(int(reads.column.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    last = np.full(len(first), -1)
    np.minimum.at(first, reads.column, reads.step)
    np.maximum.at(last, reads.column, reads.step)
    return {(site, int(c)): bool(last[c] - first[c] >= NEAR) for c in np.unique(reads.column)}


def _saves(latents: set[_Latent], width: int, far: Mapping[_Latent, bool]) -> bool:
    """Whether rows over p latents take fewer multiply-adds than a chain of so many states."""
    p, q = len(latents), sum(far.get(latent, False) for latent in latents)
    filtered = 4 * width**3 + width**2 * q + width * q**2
    return p <= _MANY and p * p / 2 + p * width <= filtered


def _coloured(driven: Mapping[int, Sequence[_Latent]]) -> tuple[dict[_Latent, int], int]:
    """A number for each latent, different for latents of one element; and how many there are."""
    elements: dict[_Latent, list[int]] = {}
    for e, latents in driven.items():
        for latent in latents:
            elements.setdefault(latent, []).append(e)
    taken: dict[int, set[int]] = {e: set() for e in driven}
    colour: dict[_Latent, int] = {}
    for latent in sorted(elements, key=lambda x: (-len(elements[x]), x)):
        used = set().union(*(taken[e] for e in elements[latent]))
        colour[latent] = next(c for c in range(len(used) + 1) if c not in used)
        for e in elements[latent]:
            taken[e].add(colour[latent])
    return colour, max(colour.values(), default=-1) + 1


def _forward(loop: Loop, colour: Mapping[_Latent, int], width: int) -> Any:
    """[T · d · (width + 1)] constants and coefficients of the driven elements, step by step.

    Numbers that are all known are a NumPy array.
    """
    slot = np.full(loop.elements, -1)
    slot[sorted(loop.driven)] = np.arange(len(loop.driven))
    inputs, moves = [], []  # (place in the array, known, factor)
    d = len(loop.driven)
    for site, reads in loop.reads:
        e = slot[reads.element]
        if site is not None and site in loop.means:
            source = slot[loop.element[site][reads.column]]
            moves.append((reads, e, source))
            continue
        if site is None or site in loop.kept:
            offset = np.zeros(len(e), np.int64)
        else:
            numbers = [colour.get((site, c), -2) + 1 for c in reads.column.tolist()]
            offset = np.array(numbers, np.int64)
        if site is not None and site in loop.kept:
            value = loop.kept[site][reads.column]
            reads = reads._replace(factor=value if reads.factor is None else value * reads.factor)
        inside = (e >= 0) & (offset >= 0)
        inputs.append((reads, inside, (reads.step * d + e) * (width + 1) + offset))
    parents = np.unique(
        np.concatenate(
            [np.zeros((2, 0), np.int64)] + [np.stack([e, s])[:, e >= 0] for _, e, s in moves],
            axis=1,
        ),
        axis=1,
    )
    rank = np.arange(parents.shape[1]) - np.searchsorted(parents[0], parents[0])
    most = int(rank.max(initial=-1)) + 1
    source = np.zeros((d, most), np.int64)
    source[parents[0], rank] = parents[1]
    coded = parents[0] * d + parents[1]
    placed = []
    for reads, e, s in moves:
        inside = e >= 0
        at = rank[np.minimum(np.searchsorted(coded, e * d + s), max(len(coded) - 1, 0))]
        placed.append((reads, inside, (reads.step * d + e) * most + at))
    force = _summed(inputs, loop.steps * d * (width + 1)).reshape(loop.steps, d, width + 1)
    move = _summed(placed, loop.steps * d * most).reshape(loop.steps, d, most)
    if isinstance(force, np.ndarray) and isinstance(move, np.ndarray):
        states, state = np.empty_like(force), np.zeros((d, width + 1))
        for t in range(loop.steps):
            state = np.einsum("dk,dkq->dq", move[t], state[source]) + force[t]
            states[t] = state
        return states.reshape(-1)

    def step(state: Any, at: Any) -> tuple[Any, Any]:
        move, force = at
        state = jnp.einsum("dk,dkq->dq", move, state[source], precision="highest") + force
        return state, state

    force, move = jnp.asarray(force, float), jnp.asarray(move, float)
    return jax.lax.scan(step, jnp.zeros_like(force[0]), (move, force))[1].reshape(-1)


def _summed(parts: Sequence[tuple[_Reads, np.ndarray, np.ndarray]], size: int) -> Any:
    """Sums [size] of known · factor at places, of the entries inside."""
    total: Any = np.zeros(size)
    for reads, inside, place in parts:
        if reads.factor is None:
            np.add.at(total, place[inside], reads.known[inside])
    for reads, inside, place in parts:
        if reads.factor is not None and inside.any():
            product = jnp.asarray(reads.known[inside]) * reads.factor[np.flatnonzero(inside)]
            total = jnp.asarray(total).at[place[inside]].add(product)
    return total


def _term(
    site: str | None, column: np.ndarray, where: np.ndarray, used: np.ndarray, values: Any
) -> Term:
    """Σ values[where] · site[column] where ``used``."""
    index = np.where(used, where, 0)
    if isinstance(values, np.ndarray):
        return Term(site, column, np.where(used, values[index], 0.0))
    return Term(site, column, used.astype(np.float64), Lookup(values, index))
