"""The programs of each experiment: the source, by hand as in the paper, and through autmarg."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpyro import handlers
from numpyro.infer import NUTS
from numpyro.infer.reparam import LocScaleReparam

import autmarg
from autmarg.backend.nuts import MarginalNUTS
from examples.benchmarks import methods
from examples.benchmarks.methods import Method, method
from examples.benchmarks.opponents import Factor, recover_single_class, single_class
from examples.benchmarks.sets import Draws, Set


@dataclass(frozen=True, eq=False)
class Program:
    """One program, made when it is run.

    Attributes:
        name: of the program, as tables have it.
        make: makes it for a set.
        plain: use NumPyro's own kernel. Else the search for an initial point is one compiled
            program, for every program alike, which saves up to 20 seconds a run.
    """

    name: str
    make: Callable[[Set], Method]
    plain: bool = False

    def kernel(self, data: Set, each: Method, **options: Any) -> NUTS:
        """NUTS with a diagonal mass matrix."""
        if self.plain:
            return NUTS(each.model, **options)
        marg = each.marg or autmarg.transform(data.source)
        return MarginalNUTS(each.model, marg.plan, dense_mass=False, **options)


def named(name: str, program: str, plain: bool = False) -> Program:
    """A program of the benchmark under a name of the tables."""

    def make(data: Set) -> Method:
        found = method(data, program)
        assert found is not None, f"{program} does not apply to {data.name}"
        return found

    return Program(name, make, plain)


def factor_of(data: Set, effects: str) -> Factor:
    """The grouping factor whose effects' sites have these names (with blanks between)."""
    return next(f for f in data.factors if f.effects == tuple(effects.split()))


def by_hand(
    name: str, effects: str = "", noncentred: Sequence[str] = (), plain: bool = False
) -> Program:
    """One class integrated out by hand, others non-centred through NumPyro's handler."""

    def make(data: Set) -> Method:
        config: Mapping[str, Any] = {site: LocScaleReparam(0) for site in noncentred}
        model = handlers.reparam(data.source, config=config) if config else data.source
        if not effects:
            return Method(name, model, lambda key, draws: draws)
        parts = (model, factor_of(data, effects), data.observed)

        def recover(key: Any, draws: Draws) -> Draws:
            return recover_single_class(*parts, key, draws, data.args)

        return Method(name, single_class(*parts), recover)

    return Program(name, make, plain)


def transformed(name: str, **options: Any) -> Program:
    """What autmarg makes of the source with some options of ``transform``."""
    return Program(name, lambda data: methods.transformed(data, name, **options))


def usual(data: Set, plain: bool = False) -> Iterator[Program]:
    """Source, hand non-centred, each of the two largest classes by hand, ours."""
    yield named("source", "source", plain)
    if data.noncentred is not None:
        yield named("non-centred", "noncentred", plain)
    for factor in data.factors[:2]:
        yield by_hand(f"by hand: {'+'.join(factor.effects)}", " ".join(factor.effects), (), plain)
    yield named("autmarg", "auto", plain)


def classes(data: Set) -> Iterator[Program]:
    """Instructor evaluations: which effects are integrated out."""
    yield named("none", "source")
    for effect in ("s", "d", "p"):
        yield by_hand(f"by hand: {effect}", effect)
    yield transformed("autmarg: all", marginalize="all")
    yield named("autmarg", "auto")


def combinations(data: Set) -> Iterator[Program]:
    """Grouse ticks: each factor sampled as written, non-centred, or integrated out."""
    forms = ("sampled", "non-centred", "integrated")
    for brood in forms:
        for location in forms:
            name = f"brood {brood}, location {location}"
            form = {"brood": brood, "location": location}
            gone = [site for site, how in form.items() if how == "integrated"]
            noise = [site for site, how in form.items() if how == "non-centred"]
            if len(gone) == 2:  # not by hand: the paper has no such program either
                yield transformed(name, marginalize=gone, reparameterize="off")
            else:
                yield by_hand(name, " ".join(gone), noise)
    yield named("autmarg", "auto")


def timed(data: Set) -> Iterator[Program]:
    """Electric company and pulmonary fibrosis: with NumPyro's own kernel, as users time it."""
    yield from usual(data, plain=True)
    yield named("autmarg, marg.nuts()", "auto")
