"""The program: sites in order over one tape of expressions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from autmarg.compat.fingerprint import Fingerprint
from autmarg.errors import Refusal
from autmarg.ir.nodes import Node, Observe, Param, Plate, Recover, Sample, Static, Structure
from autmarg.ir.pickled import AsValue
from autmarg.ir.tape import Tape

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class Program(AsValue):
    """A frozen graph of sites.

    Attributes:
        name: of the user's function.
        nodes: in the order in which the program meets them.
        plates: in the same order.
        tape: the expressions of all nodes.
        obstacles: what the IR cannot hold; where there is any, the model is left as it is.
        names: what the user calls arrays that the program reads, for printing.
        plan: what passes have decided so far (an :class:`autmarg.plan.plan.Plan`), or None.
        unmet: latents that a pass was asked for and could not take → what it would have needed.
        sharding: how data with rows on several devices lie there, or None
            (:func:`autmarg.compat.shards.rows_of`).
    """

    name: str
    nodes: tuple[Node, ...]
    plates: tuple[Plate, ...]
    tape: Tape
    obstacles: tuple[Refusal, ...] = ()
    names: Mapping[str, Any] = field(default_factory=dict)
    plan: Any = None
    unmet: Mapping[str, str] = field(default_factory=dict)
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
    def graph(self) -> nx.DiGraph[Any]:
        """Sites as vertices, an edge from every latent to each site that reads it."""
        import networkx as nx  # slow to import

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

    def ancestors(self, name: str) -> set[str]:
        """All that a site reads, through other sites, too."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            own = waiting.pop()
            new = self[own].parents - found if own in self else frozenset()
            found |= new
            waiting += new
        return found - {name}

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

    @property
    def fingerprint(self) -> str:
        """A hash of everything that shapes a plan: structure, shapes, constants' contents.

        Programs of one hash are equal; see :mod:`autmarg.compat.fingerprint`.
        """
        return self._hashed[0]

    @property
    def comparable(self) -> bool:
        """Whether an equal program, traced again, has the same fingerprint."""
        return self._hashed[1]

    @cached_property
    def _hashed(self) -> tuple[str, bool]:
        found, tape = Fingerprint(), self.tape
        for node in self.nodes:
            found.feed(type(node).__name__, node.name, sorted(node.parents))
            found.feed([(p.name, p.size, p.dim) for p in node.plates])
            if isinstance(node, Sample):
                spec = node.distribution
                found.feed(spec.kind, spec.batch_shape, spec.event_shape, node.shape)
                found.feed(node.sample_shape, node.scale, node.scanned, dict(node.infer))
                _feed_structure(found, spec)
            if isinstance(node, Param):
                initial = node.initial if isinstance(node.initial, int) else "a function of a key"
                found.feed(initial)
                _feed_structure(found, node.options)
            found.feed(getattr(node, "value", None))
        live = tape.slice(v for node in self.nodes for v in node.numbers)
        for equation in live:
            found.equation(equation.primitive, equation.params)
            found.feed(equation.inputs, equation.outputs)
        used = {v for e in live for v in e.inputs} | {v for n in self.nodes for v in n.numbers}
        for number in sorted(used & set(tape.constants)):
            found.feed(number, tape.constants[number])
        found.feed(sorted(tape.inputs.items()), [o.reason for o in self.obstacles])
        return found.hexdigest(), found.comparable

    def shown(self) -> dict[str, Any]:
        """The text, which reads known arrays and their expressions."""
        from autmarg.ir.printer import describe

        return {"text": describe(self)}

    def __str__(self) -> str:
        from autmarg.ir.printer import print_program

        return print_program(self)


def _feed_structure(found: Fingerprint, structure: Structure) -> None:
    found.feed(structure.treedef)
    found.feed([x.value if isinstance(x, Static) else ("tape", x) for x in structure.leaves])
