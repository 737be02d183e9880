"""The program: sites in order over one tape of expressions."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jax.extend.core import ClosedJaxpr
from scipy.sparse import issparse

from autmarg.errors import Refusal
from autmarg.ir.nodes import Node, Observe, Param, Plate, Recover, Sample
from autmarg.ir.shards import is_spread, shards
from autmarg.ir.tape import Tape

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of functions inside a jaxpr's parameters


@dataclass(frozen=True, eq=False)
class Program:
    """A frozen graph of sites.

    Attributes:
        name: of the user's function.
        nodes: in the order in which the program meets them.
        plates: in the same order.
        tape: the expressions of all nodes.
        obstacles: what the IR cannot hold; where there is any, the model is left as it is.
        names: what the user calls arrays that the program reads, for printing.
        plan: what passes have decided so far (an :class:`autmarg.plan.plan.Plan`), or None.
        sharding: how data with rows on several devices lie there, or None
            (:func:`autmarg.ir.shards.rows_of`).
    """

    name: str
    nodes: tuple[Node, ...]
    plates: tuple[Plate, ...]
    tape: Tape
    obstacles: tuple[Refusal, ...] = ()
    names: Mapping[str, Any] = field(default_factory=dict)
    plan: Any = None
    sharding: Any = None

    def __getitem__(self, name: str) -> Node:
        return self._index[name]

    def __contains__(self, name: object) -> bool:
        return name in self._index

    @cached_property
    def _index(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def latents(self) -> tuple[Sample, ...]:
        """Latent sites, in program order."""
        return tuple(n for n in self.nodes if isinstance(n, Sample) and not isinstance(n, Observe))

    @property
    def observed(self) -> tuple[Observe, ...]:
        """Observed sites, in program order."""
        return tuple(n for n in self.nodes if isinstance(n, Observe))

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Sites as vertices, an edge from every latent to each site that reads it."""
        graph = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node.name, node=node)
            graph.add_edges_from((parent, node.name) for parent in node.parents)
        return graph

    @property
    def integrated(self) -> tuple[Sample, ...]:
        """Latents that are integrated out, which recovery draws."""
        return tuple(m for n in self.nodes if isinstance(n, Recover) for m in n.members)

    def children(self, name: str) -> list[Node]:
        """Sites whose density or value reads the latent ``name``, in program order."""
        return [n for n in self.nodes if name in n.parents and not isinstance(n, Recover)]

    def replace_nodes(self, nodes: Iterable[Node], tape: Tape | None = None) -> Program:
        """The program with other nodes (and, if given, another tape)."""
        return replace(self, nodes=tuple(nodes), tape=tape or self.tape)

    def with_distribution(
        self, name: str, make: Callable[..., Any], reads: Sequence[str] = ()
    ) -> Program:
        """The program with another distribution at a site.

        Args:
            name: of a latent or observed site.
            make: the new distribution, a NumPyro one of the same shape, as a function of the one
                that is there (without ``expand`` and ``to_event``) and of the values of ``reads``.
            reads: other latents that the new distribution is a function of.

        Raises:
            RequestError: there is no such site, or the shapes differ.
        """
        from autmarg.ir.edit import with_distribution

        return with_distribution(self, name, make, reads)

    def owning(self) -> Program:
        """The program with known arrays of its own, which no change in place can reach."""
        return replace(self, tape=self.tape.owning())

    def given(self, names: Collection[str]) -> Program:
        """The program with some latents observed, at values that are inputs of the tape."""

        def observed(node: Node) -> Observe:
            own = {f.name: getattr(node, f.name) for f in fields(node)}
            return Observe(**own, value=self.tape.inputs[node.name])

        nodes = tuple(observed(n) if n.name in names else n for n in self.nodes)
        obstacles = tuple(o for o in self.obstacles if o.site not in names)
        return replace(self, nodes=nodes, obstacles=obstacles)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that shapes a plan: structure, shapes, constants' contents."""
        digest = hashlib.blake2b(digest_size=16)

        def feed(*parts: object) -> None:
            digest.update("\x1f".join(map(str, parts)).encode())

        for node in self.nodes:
            feed(type(node).__name__, node.name, sorted(node.parents), node.plates)
            if isinstance(node, Sample):
                spec = node.distribution
                feed(spec.kind, spec.leaves, spec.batch_shape, spec.event_shape, node.shape)
                feed(node.sample_shape, node.scale, node.scanned, _structure(spec.treedef))
            if isinstance(node, Param):
                initial = node.initial if isinstance(node.initial, int) else "a function of a key"
                feed(initial, node.options.leaves, _structure(node.options.treedef))
            feed(getattr(node, "value", ""))
        for plate in self.plates:
            feed(plate)
        for eqn in self.tape.equations:
            feed(eqn.primitive.name, eqn.inputs, eqn.outputs)
            for key, value in sorted(eqn.params.items()):
                feed(key)
                _feed_param(digest, value)
        for number, constant in sorted(self.tape.constants.items()):
            feed(number)
            _feed_array(digest, constant)
        feed(sorted(self.tape.inputs.items()), [o.reason for o in self.obstacles])
        return digest.hexdigest()

    def __str__(self) -> str:
        from autmarg.ir.printer import print_program

        return print_program(self)


def _structure(treedef: Any) -> str:
    """A treedef's text, arrays in full, with the contents of sparse matrices in it."""
    with np.printoptions(threshold=sys.maxsize):
        text = str(treedef)
    matrices = (m.tocoo() for m in _sparse(treedef))
    parts = [repr((m.row.tolist(), m.col.tolist(), m.data.tolist())) for m in matrices]
    return "\n".join([text, *parts])


def _sparse(treedef: Any) -> Iterator[Any]:
    """Sparse matrices among the static data of a treedef's nodes."""
    _, static = treedef.node_data() or (None, ())
    yield from (m for m in (static if isinstance(static, tuple) else ()) if issparse(m))
    for child in treedef.children():
        yield from _sparse(child)


def _feed_array(digest: Any, value: Any) -> None:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        with jax.ensure_compile_time_eval():
            value = jax.random.key_data(value)
    digest.update(f"{value.dtype}{value.shape}".encode())
    if is_spread(value):
        digest.update(str(value.sharding).encode())
    for _, part in shards(value) if is_spread(value) else ((None, value),):
        digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))


def _feed_param(digest: Any, value: Any) -> None:
    """A primitive's parameter: nested jaxprs with their constants, arrays by content."""
    if isinstance(value, ClosedJaxpr):
        digest.update(_ADDRESS.sub("", str(value.jaxpr)).encode())
        for constant in value.consts:
            _feed_array(digest, constant)
    elif isinstance(value, np.ndarray | jax.Array):
        _feed_array(digest, value)
    elif isinstance(value, tuple | list):
        for item in value:
            _feed_param(digest, item)
    else:
        digest.update(_ADDRESS.sub("", str(value)).encode())
