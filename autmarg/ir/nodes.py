"""The nodes of a program: one frozen record for each site."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpyro.distributions import biject_to

from autmarg.errors import Place, RequestError
from autmarg.ir.staged import known
from autmarg.ir.tape import Tape


@dataclass(frozen=True)
class Plate:
    """A plate: ``size`` conditionally independent entries along batch dimension ``dim`` (< 0).

    One name may stand for several plates, on different dimensions.
    """

    name: str
    size: int
    dim: int


@dataclass(frozen=True)
class Static:
    """A distribution parameter that is not an array."""

    value: Any


@dataclass(frozen=True, eq=False)
class Structure:
    """A pytree over tape values.

    Attributes:
        treedef: the structure.
        leaves: for every leaf its number on the tape, or a :class:`Static`.
    """

    treedef: Any
    leaves: tuple[int | Static, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """Tape numbers of the array leaves."""
        return tuple(leaf for leaf in self.leaves if not isinstance(leaf, Static))

    def unflatten(self, arrays: Any) -> Any:
        """The object with ``arrays`` for its array leaves.

        Raises:
            RequestError: it was read from text without its store.
        """
        if self.treedef is None:
            raise RequestError(
                "the program was read from text without its store: expected a pass that looks at "
                "the structure only, or the store"
            )
        arrays = iter(arrays)
        leaves = [leaf.value if isinstance(leaf, Static) else next(arrays) for leaf in self.leaves]
        return jax.tree.unflatten(self.treedef, leaves)

    def build(self, tape: Tape, values: Mapping[str, Any]) -> Any:
        """The object at given values of the latents it depends on."""
        return self.unflatten(tape.evaluate(self.values, values))


@dataclass(frozen=True, eq=False)
class DistributionSpec(Structure):
    """A NumPyro distribution with its whole wrapping (``Expanded``, ``Masked``, … are nodes of it).

    Attributes:
        kind: class name of the outermost distribution, for printing.
        batch_shape, event_shape: as NumPyro has them.
    """

    kind: str
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """What every site has: its name, the latents it reads, and the user's line."""

    name: str
    parents: frozenset[str]
    place: Place | None
    plates: tuple[Plate, ...] = ()

    @property
    def size(self) -> int:
        return 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """Tape numbers of all its expressions."""
        return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Node):
    """A latent site; ``shape`` is sample_shape + batch_shape + event_shape.

    ``scanned`` sites stand in a ``scan``: axis 0 is time, and they may read their own past.
    """

    distribution: DistributionSpec
    shape: tuple[int, ...]
    dtype: Any
    sample_shape: tuple[int, ...] = ()
    infer: Mapping[str, Any] = field(default_factory=dict)
    scale: int | None = None
    scanned: bool = False

    def dimensions(self, tape: Tape) -> int:
        """Dimensions in which a latent can move: elements of its unconstrained value.

        A correlation's factor has fewer of them than elements; a discrete site has its elements, or
        none where NumPyro's HMC sums over its values.
        """
        shape = self.unconstrained_shape(tape)
        if shape is not None:
            return math.prod(shape)
        return 0 if self.is_summed_over(tape) else self.size

    def is_summed_over(self, tape: Tape) -> bool:
        """Whether a latent is discrete, and NumPyro's HMC sums over its values."""

        def enumerable(*leaves: Any) -> bool:
            return bool(self.distribution.unflatten(leaves).has_enumerate_support)

        return known(enumerable, *(tape.avals[v] for v in self.distribution.values))

    def unconstrained_shape(self, tape: Tape) -> tuple[int, ...] | None:
        """The shape of a latent's unconstrained value; None where no map leads from one."""

        def shape(
            *leaves: Any,
        ) -> tuple[int, ...] | None:  # a support may have bounds that are latents
            support = self.distribution.unflatten(leaves).support
            try:
                return biject_to(support).inverse_shape(self.shape)
            except NotImplementedError:
                return None

        return known(shape, *(tape.avals[v] for v in self.distribution.values))

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def numbers(self) -> tuple[int, ...]:
        scale = () if self.scale is None else (self.scale,)
        return (*self.distribution.values, *scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class Observe(Sample):
    """An observed site; ``value`` is its value's number on the tape."""

    value: int

    @property
    def numbers(self) -> tuple[int, ...]:
        return (*super().numbers, self.value)


@dataclass(frozen=True, eq=False, kw_only=True)
class StandIn(Observe):
    """A Gaussian site, its value pseudo-data, in place of one that is not Gaussian.

    It stands in a program from the pass that writes it to the one that takes it out.

    Attributes:
        original: what it stands in for.
        predictor: number of its mean, of which, with others, the original is a function.
        integrated: names of the latents that are integrated out by quadrature, the innermost
            first; none where those that are Gaussian then become functions of noise.
        nodes: of each integral, 0 where that is not decided.
        error: of the integral's logarithm, in nats, found with twice as many nodes.
        piece: names of the latents that its mean reads, the others at their values at the mode;
            none where it reads all.
        turn: the matrix that says what pieces have to do with one another at the mode
            (:mod:`autmarg.whitening.turn`), where there are pieces and the mode is known.
    """

    original: Observe
    predictor: int
    integrated: tuple[str, ...] = ()
    nodes: int = 0
    error: float = 0.0
    piece: tuple[str, ...] = ()
    turn: np.ndarray | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        return (*super().numbers, *self.original.numbers, self.predictor)


@dataclass(frozen=True, eq=False, kw_only=True)
class Deterministic(Node):
    """A named function of latents; ``value`` is its number on the tape."""

    value: int

    @property
    def numbers(self) -> tuple[int, ...]:
        return (*super().numbers, self.value)


@dataclass(frozen=True, eq=False, kw_only=True)
class Factor(Node):
    """A term added to the log-density (``numpyro.factor``), after masks and scales.

    ``value`` is its number.
    """

    value: int

    @property
    def numbers(self) -> tuple[int, ...]:
        return (*super().numbers, self.value)


@dataclass(frozen=True, eq=False, kw_only=True)
class Param(Node):
    """A ``numpyro.param`` site: an input with an initial value.

    Attributes:
        shape: of its value.
        initial: number of the initial value, or a function of a random key.
        options: the call's other arguments (its constraint, …).
    """

    shape: tuple[int, ...]
    initial: int | Callable[[Any], Any]
    options: Structure

    @property
    def numbers(self) -> tuple[int, ...]:
        initial = (self.initial,) if isinstance(self.initial, int) else ()
        return (*self.options.values, *initial)


@dataclass(frozen=True, eq=False, kw_only=True)
class Ancestral(Sample):
    """A kept latent whose mean depends on integrated ones.

    Sampled ancestrally (integrated latents drawn first, then it); its density is in ``marginal``.
    """

    marginal: str


def of_sites(kind: str, sites: Iterable[Node]) -> str:
    """The name of a node that stands for several sites: ``kind(site, site, …)``."""
    return f"{kind}({', '.join(site.name for site in sites)})"


def decentered(name: str) -> str:
    """What the site of a latent's standard noise is called, as in NumPyro's LocScaleReparam."""
    return f"{name}_decentered"


@dataclass(frozen=True, eq=False, kw_only=True)
class NonCentred(Sample):
    """A kept latent met through its standardised site: x = f(loc + scale · z), z standard.

    Attributes:
        base: the site of z.
        value, log_jacobian: tape numbers of x and of log |det dx/dz|, given z.
    """

    base: Sample
    value: int
    log_jacobian: int

    @property
    def numbers(self) -> tuple[int, ...]:
        return (*super().numbers, *self.base.numbers, self.value, self.log_jacobian)


@dataclass(frozen=True, eq=False, kw_only=True)
class Marginal(Node):
    """The joint density of observed sites and kept children, the members integrated out.

    Attributes:
        observed: the observed sites, which keep their names.
        children: names of the kept latents whose density is here.
        density: evaluates it (:class:`autmarg.ir.density.Density`); None in a bare structure.
        structure: how, in words, a stage at a time.
    """

    observed: tuple[Observe, ...]
    children: tuple[str, ...]
    density: Any
    structure: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(v for site in self.observed for v in site.numbers)


WHITENED = "whitened"  # the rule of members that are functions of standard noise
QUADRATURE = "quadrature"  # of members that are integrated out numerically


@dataclass(frozen=True, eq=False, kw_only=True)
class Recover(Node):
    """The exact conditional of ``members`` given kept latents and data, drawn after sampling.

    Attributes:
        members: the sites integrated out, as they were.
        marginal: name of the node that has their density's other half.
        density: draws them.
        rule: by which they were integrated out; ``why`` they could be, in words, or "".
        noise: the sampled site of which they are a function, if they are, or "".
    """

    members: tuple[Sample, ...]
    marginal: str
    density: Any
    rule: str = ""
    why: str = ""
    noise: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(v for site in self.members for v in site.numbers)

    @property
    def integrated(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(m.name for m in self.members)
