"""The pass protocol, and a list of passes as a value that one can print, change and run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from autmarg.errors import AutmargError, InternalError, PassError, Place, RequestError
from autmarg.ir.nodes import Node
from autmarg.ir.program import Program
from autmarg.ir.verifier import check
from autmarg.passes.registry import is_built_in, named
from autmarg.trace.record import place_of_error


@runtime_checkable
class Pass(Protocol):
    """A frozen dataclass whose fields are its options: one program in, a new one out.

    One that changes the model on purpose has ``changes_density = True``: ``verify`` then compares
    with what it makes of the source. ``apply`` of a pass that makes several rewrites yields the
    program after each, so that each is checked and logged by itself.
    """

    @property
    def name(self) -> str: ...

    def apply(self, program: Program, /) -> Program | Iterator[Program]:
        """The rewritten program, or the program after each of several rewrites."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """One rewrite: the pass that made it, the program before and after, and how long it took.

    ``rule`` says by which rule, where the pass knows several.
    """

    name: str
    rule: str
    before: Program
    after: Program
    seconds: float

    @property
    def changed(self) -> tuple[Node, ...]:
        """Nodes that are gone or replaced by others."""
        kept = {id(node) for node in self.after.nodes}
        return tuple(node for node in self.before.nodes if id(node) not in kept)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the nodes that are gone, replaced or new, in program order."""
        old = {id(node) for node in self.before.nodes}
        new = (node.name for node in self.after.nodes if id(node) not in old)
        return tuple(dict.fromkeys([*(node.name for node in self.changed), *new]))

    @property
    def places(self) -> tuple[Place, ...]:
        """The user's lines that were rewritten."""
        return tuple(dict.fromkeys(node.place for node in self.changed if node.place))

    def __str__(self) -> str:
        sizes = [
            f"{was} → {now} {what}"
            for what, was, now in (
                ("sites", len(self.before.nodes), len(self.after.nodes)),
                ("expressions", *(len(p.tape.equations) for p in (self.before, self.after))),
            )
            if was != now
        ]
        what = f"{self.name} ({self.rule})" if self.rule else self.name
        where = f" at {', '.join(map(str, self.places))}" if self.places else ""
        sites = f" {', '.join(self.sites)}{where};" if self.sites else ""
        return f"{what}:{sites} {', '.join(sizes) or 'same size'}; {self.seconds:.3f} s"


@dataclass(frozen=True)
class Passes:
    """Passes in order. Every method returns a new list.

    Raises:
        RequestError: one is no pass, or a name is not in the list.
    """

    passes: tuple[Pass, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "passes", tuple(self.passes))
        for each in self.passes:
            if not isinstance(each, Pass) or not isinstance(each.name, str):
                raise RequestError(
                    f"{each!r} is no pass: expected an object with a name and apply(program)"
                )

    @property
    def changing(self) -> Passes:
        """Passes that declare ``changes_density = True``: they change the model on purpose."""
        return Passes(tuple(p for p in self.passes if getattr(p, "changes_density", False)))

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Pass:
        return self.passes[self._index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(each.name for each in self.passes)

    def before(self, name: str) -> Passes:
        """Those before the first one of that name."""
        return Passes(self.passes[: self._index(name)])

    def insert_before(self, name: str, *new: Pass | str) -> Passes:
        """The list with other passes before the first one of that name.

        Here and below a pass may be given by the name under which it is built in or installed.
        """
        return self._spliced(self._index(name), 0, new)

    def insert_after(self, name: str, *new: Pass | str) -> Passes:
        """The list with other passes after the first one of that name."""
        return self._spliced(self._index(name) + 1, 0, new)

    def replace(self, name: str, *new: Pass | str) -> Passes:
        """The list with others in place of the first one of that name."""
        return self._spliced(self._index(name), 1, new)

    def drop(self, *names: str) -> Passes:
        """The list without the passes of these names."""
        for name in names:
            self._index(name)
        return Passes(tuple(each for each in self.passes if each.name not in names))

    def append(self, *new: Pass | str) -> Passes:
        """The list with other passes at its end."""
        return self._spliced(len(self), 0, new)

    def reorder(self, *names: str) -> Passes:
        """The passes of these names, in this order."""
        return Passes(tuple(self[name] for name in names))

    def run(self, program: Program, after: Callable[[Step], None] | None = None) -> Program:
        """Apply all passes; every program that comes out is checked.

        ``after`` is called with every :class:`Step` (to print, time or verify).

        Raises:
            PassError: a pass that is not autmarg's own raised, or returned something else than
                a well-formed program; it says which invariant is broken.
            RequestError: a pass refused.
        """
        for each in self.passes:
            start = time.perf_counter()
            for result in _results(each, program):
                if after is not None:
                    rule = getattr(each, "rule", "")
                    after(Step(each.name, rule, program, result, time.perf_counter() - start))
                program, start = result, time.perf_counter()
        return program

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise RequestError(f"there is no pass '{name}'; expected one of {self.names}")
        return self.names.index(name)

    def _spliced(self, start: int, gone: int, new: Iterable[Pass | str]) -> Passes:
        made = (named(each) if isinstance(each, str) else each for each in new)
        return Passes((*self.passes[:start], *made, *self.passes[start + gone :]))

    def __str__(self) -> str:
        return "\n".join(f"{k}. {each}" for k, each in enumerate(self.passes, start=1))


def _results(each: Any, program: Program) -> Iterator[Program]:
    """What a pass makes of a program, a rewrite at a time, checked.

    Raises:
        PassError: it is not one of autmarg's own, and raised or returned something else.
        InternalError: it is one of ours.
    """
    own = is_built_in(each)
    try:
        made = each.apply(program)
        for result in made if isinstance(made, Iterator) else (made,):
            yield _checked(result)
    except InternalError as error:
        words = f"after pass '{each.name}': {error}"
        raise (InternalError(words) if own else PassError(words)) from error
    except AutmargError:
        raise
    except Exception as error:
        if own:  # a bug of ours keeps its own name and place
            raise
        place = place_of_error(error)
        where = f" at {place}" if place else ""
        words = f"{type(error).__name__}: {error}"
        raise PassError(f"pass '{each.name}' failed{where}: {words}") from error


def _checked(result: Any) -> Program:
    if not isinstance(result, Program):
        raise InternalError(
            f"expected a Program from apply, found {type(result).__name__}; return "
            "program.replace_nodes(…), or the program itself where nothing changes"
        )
    return check(result)
