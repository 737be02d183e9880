"""The invariants of a program: what every pass may rely on, and what it has to leave behind.

Each is one function that yields complaints: what was expected, what was found, what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter

from autmarg.errors import InternalError
from autmarg.ir.nodes import Factor, Marginal, Node, NonCentred, Observe, Param, Recover, Sample
from autmarg.ir.program import Program


def check(program: Program) -> Program:
    """Return the program, if all of its invariants hold.

    Raises:
        InternalError: one does not; says which, and what to do.
    """
    for invariant in INVARIANTS:
        for complaint in invariant(program):
            raise InternalError(f"program '{program.name}' is broken: {complaint}")
    return program


def _nodes(program: Program) -> Iterator[str]:
    """Nodes are nodes, of different names."""
    for node in program.nodes:
        if not isinstance(node, Node):
            kind = type(node).__name__
            yield f"expected nodes of autmarg.ir.nodes, found a {kind} among them"
            return
    names = [node.name for node in program.nodes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield (
            f"expected different names, found two nodes of one name: {', '.join(twice)}; replace "
            "a node in the list instead of adding it, or rename one"
        )


def _numbers(program: Program) -> Iterator[str]:
    """Everything that an equation or a node reads is on the tape, equations in order."""
    defined = {*program.tape.constants, *program.tape.inputs.values()}
    for eqn in program.tape.equations:
        if missing := set(eqn.inputs) - defined:
            yield (
                f"expected equations in an order in which they can be evaluated, found a "
                f"{eqn.name} that reads undefined values {sorted(missing)}"
            )
        defined.update(eqn.outputs)
    for node in program.nodes:
        if missing := set(node.numbers) - defined:
            yield (
                f"expected the expressions of '{node.name}' on the program's tape, found the "
                f"numbers {sorted(missing)} of another; give replace_nodes the tape that "
                "tape.extend returned with them"
            )


def _parents(program: Program) -> Iterator[str]:
    """Parents are latents that exist, or inputs; all that a node reads are its parents."""
    known = {n.name for n in program.latents} | _recovered(program)
    known |= {n.name for n in program.nodes if isinstance(n, Param)}
    known |= {name for name in program.tape.inputs if name.startswith("@")}
    for node in program.nodes:
        if extra := sorted(node.parents - known):
            yield (
                f"'{node.name}' reads {_list(extra)}, expected latent sites, found none of that "
                "name; a site that is taken out must not be read any more"
            )
        if isinstance(node, Marginal | Recover):  # their densities know what they read
            continue
        own = {node.base.name} if isinstance(node, NonCentred) else set()
        read = program.tape.dependencies(node.numbers) - node.parents - own
        if read := sorted(name for name in read if not name.startswith("@")):
            yield (
                f"expected what '{node.name}' reads among its parents, found {_list(read)} only in "
                "its expressions; set parents to tape.dependencies(node.numbers)"
            )


def _plates(program: Program) -> Iterator[str]:
    """Plates are declared."""
    for node in program.nodes:
        if extra := sorted(str(p) for p in {*node.plates} - {*program.plates}):
            yield (
                f"expected plates of the program, found '{node.name}' in undeclared plates "
                f"{_list(extra)}; add them to program.plates"
            )


def _shapes(program: Program) -> Iterator[str]:
    """A site has the shape of its distribution, its value that of the tape's input."""
    for node in program.nodes:
        if not isinstance(node, Sample) or node.scanned:
            continue
        spec = node.distribution
        drawn = (*node.sample_shape, *spec.batch_shape, *spec.event_shape)
        if not isinstance(node, Observe) and node.shape != drawn:
            yield f"expected '{node.name}' of shape {drawn}, its distribution's, found {node.shape}"
        number = program.tape.inputs.get(node.name)
        if number is not None and program.tape.avals[number].shape != node.shape:
            shape = program.tape.avals[number].shape
            yield f"expected '{node.name}' of shape {shape}, as it is read, found {node.shape}"


def _integrated(program: Program) -> Iterator[str]:
    """What is integrated out is not sampled, its density nowhere but in its marginal."""
    recovered, latents = _recovered(program), {n.name for n in program.latents}
    for node in program.nodes:
        if isinstance(node, Factor | Observe) and (extra := sorted(node.parents & recovered)):
            yield (
                f"'{node.name}' reads {_list(extra)}, expected sampled latents, found ones that "
                "are integrated out; run the pass that adds it before 'detect'"
            )
        if isinstance(node, Recover):
            if overlap := sorted(latents & set(node.integrated)):
                yield f"'{node.name}' draws {_list(overlap)}, found them still sampled, too"
            if node.marginal not in program:
                yield f"'{node.name}' belongs to no marginal '{node.marginal}', expected it there"


def _order(program: Program) -> Iterator[str]:
    """No site reads itself through others, but for sites of one scan, which read their past."""
    scanned = {n.name for n in program.nodes if isinstance(n, Sample) and n.scanned}
    parents = {
        n.name: [p for p in sorted(n.parents) if not {p, n.name} <= scanned] for n in program.nodes
    }
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1][:-1])
        yield f"expected sites that can be drawn one after the other, found a circle: {circle}"


def _recovered(program: Program) -> set[str]:
    return {m.name for m in program.integrated}


def _list(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


INVARIANTS: tuple[Callable[[Program], Iterator[str]], ...] = (
    _nodes, _parents, _numbers, _plates, _integrated, _shapes, _order,
)  # fmt: skip

__all__ = ["INVARIANTS", "check"]
