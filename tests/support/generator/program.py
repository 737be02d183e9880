"""A generated program as a value: it prints as the NumPyro program that it is, and runs as that.

The printed text is what runs, so a failure can be pasted as a test as it stands.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

# Known arrays that programs may read, as source text. 12 rows, in 4 and in 3 groups, also 4 × 3.
DATA = {
    "x": "np.array([-1.2, 0.4, 0.9, -0.3, 1.7, 0.2, -0.8, 1.1, -1.9, 0.6, 0.05, -0.5])",
    "Z": "np.stack([np.ones(12), x], axis=1)",
    "W": "np.array([[1.0, -0.4], [1.0, 0.3], [1.0, 1.2], [1.0, -0.9]])",
    "w": "np.array([0.5, -1.0, 0.8, 0.3])",
    "M": "np.array([[0.6, -0.2, 0.4], [0.1, 0.9, -0.7]])",
    "g": "np.array([0, 0, 1, 3, 0, 1, 0, 0, 1, 0, 3, 0])",
    "h": "np.array([2, 0, 1, 1, 2, 0, 0, 1, 2, 0, 2, 2])",
    "county": "np.array([1, 0, 0, 1])",
    "noise": "np.linspace(0.4, 1.5, 12)",
    "seen": "x < 1.0",
    "Y": "np.array([0.3, -1.2, 0.8, 2.2, 0.1, 1.9, -0.4, 0.7, 3.1, 0.2, -0.6, 1.4])",
}


@dataclass(frozen=True, eq=False)
class Term:
    """Source text with holes for operands.

    ``linear`` are the holes in which the value is affine, None for all of them; ``product`` says
    that the two operands are latents that are multiplied together.
    """

    template: str
    operands: tuple[Term | Site, ...] = ()
    linear: tuple[int, ...] | None = None
    product: bool = False

    def __str__(self) -> str:
        return self.template.format(*(f"({operand})" for operand in self.operands))

    def uses(self, affine: bool = True) -> Iterator[tuple[Site, bool]]:
        """Sites read, each with whether the value is affine in it."""
        for i, operand in enumerate(self.operands):
            here = affine and (self.linear is None or i in self.linear)
            if isinstance(operand, Term):
                yield from operand.uses(here)
            else:
                yield operand, here
                if operand.through:
                    yield from operand.value.uses(here)

    def products(self) -> Iterator[tuple[Site, Site]]:
        """Pairs of latents that are multiplied together, the smaller one first."""
        if self.product:
            smaller, larger = self.operands
            assert isinstance(smaller, Site) and isinstance(larger, Site)
            yield smaller, larger
        for operand in self.operands:
            if isinstance(operand, Term):
                yield from operand.products()
            elif operand.through:
                yield from operand.value.products()


@dataclass(frozen=True, eq=False)
class Site:
    """One statement of the program, ``name = numpyro.sample("name", value, arguments)``.

    ``latent`` is the name of the site that a Gaussian latent leaves in a trace, None for any other
    site; ``plates`` are (size, dim) pairs, ``handler`` wraps the statement. Who reads a site with
    ``through`` reads its parameters too: it is a function of them and of its latent.
    """

    name: str
    value: Term
    latent: str | None = None
    plates: tuple[tuple[int, int], ...] = ()
    arguments: str = ""
    handler: str = ""
    kind: str = "sample"
    through: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def reads(self) -> bool:
        """Whether its own density reads what its parameters are made of."""
        return self.kind != "deterministic" and "LocScaleReparam(0.0)" not in self.handler

    def statement(self) -> str:
        context = ", ".join([self.handler] * bool(self.handler) + [_plate(*p) for p in self.plates])
        call = f'{self.name} = numpyro.{self.kind}("{self.name}", {self.value}{self.arguments})'
        return f"with {context}:\n    {call}" if context else call


def _plate(size: int, dim: int) -> str:
    return f"plate_{size}_{-dim}"


@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """Statements that end a program: observed sites, and others that nothing reads."""

    ends: tuple[Site, ...]

    @cached_property
    def sites(self) -> list[Site]:
        """All sites, every one after those it reads."""
        found: dict[str, Site] = {}

        def visit(site: Site) -> None:
            if site.name not in found:
                for other, _ in site.value.uses():
                    visit(other)
                found[site.name] = site

        for end in self.ends:
            visit(end)
        return list(found.values())

    @cached_property
    def integrated(self) -> frozenset[str]:
        """The latents that can be integrated out: Gaussian, and read affinely by Gaussian sites.

        Of two that are multiplied together the smaller one stays.
        """
        readers = [s for s in self.sites if s.reads]
        stays = {site for s in readers for site, affine in s.value.uses() if not affine}
        for smaller, larger in (p for s in readers for p in s.value.products()):
            if larger not in stays:
                stays.add(smaller)
        return frozenset(s.latent for s in self.sites if s.latent and s not in stays)

    def __str__(self) -> str:
        plates = {p: None for s in self.sites for p in s.plates}
        body = [f'{_plate(*p)} = numpyro.plate("{_plate(*p)}", {p[0]}, dim={p[1]})' for p in plates]
        body += [s.statement() for s in self.sites]
        indented = "\n".join(body).replace("\n", "\n    ")
        text = ast.unparse(ast.parse(f"def model():\n    {indented}"))
        read = _names(text)
        for name in reversed(DATA):
            read |= _names(DATA[name]) if name in read else set()
        known = [f"{name} = {DATA[name]}" for name in DATA if name in read]
        return "\n".join([*known, "", text])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How Hypothesis prints a failing program."""
        printer.text(f"\n{self}\n")

    @cached_property
    def model(self) -> Callable[[], Any]:
        """The program, run from its text."""
        text = str(self)
        file = f"<program {hash(text) & 0xFFFFFFFF:08x}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        scope = {"jax": jax, "jnp": jnp, "np": np, "numpyro": numpyro, "dist": dist}
        exec(compile(text, file, "exec"), scope)
        return scope["model"]


def _names(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
