"""Pointwise log-likelihoods: given effects, leave-one-out, leave-one-group-out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.infer import log_likelihood as of_source

from autmarg.backend.batches import LONG, MEMORY, TOGETHER, at_each, in_batches
from autmarg.conjugacy.conjugate import ConjugateMarginal
from autmarg.errors import RequestError, named
from autmarg.gaussian.leave_out import ROOM
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Marginal, Observe, Param, Recover
from autmarg.ir.program import Program
from autmarg.posterior.draws import Draws
from autmarg.posterior.grouping import Groups, groups_of
from autmarg.posterior.pointwise_conjugate import ConjugatePointwise
from autmarg.posterior.pointwise_gaussian import GaussianPointwise, group_sum
from autmarg.posterior.units import batch_of
from autmarg.whitening.density import WhitenedMarginal

WHICH = ("conditional", "marginal", "group")

Pointwise = GaussianPointwise | ConjugatePointwise


@dataclass(frozen=True, eq=False)
class Fit:
    """A transformed model with draws and the arguments that they belong to.

    Attributes:
        marg: the model.
        draws: of its sampled sites, and maybe of others.
        args, kwargs: its arguments.
        key: with which effects are drawn.
        batch_size: draws worked on at once, or None.
    """

    marg: Any
    draws: Draws
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    key: Any
    batch_size: int | None

    @cached_property
    def _compiled(self) -> tuple[Any, dict[str, Any]]:
        return self.marg.compiled(*self.args, **self.kwargs)

    @property
    def compiled(self) -> Any:
        """The compiled program."""
        return self._compiled[0]

    @property
    def traced(self) -> dict[str, Any]:
        """Values of traced constants."""
        return self._compiled[1]

    @property
    def source(self) -> Program:
        """The program before it was rewritten."""
        return self.compiled.plan.program

    @property
    def lead(self) -> tuple[int, ...] | None:
        """Leading dimensions of the draws; None where only a latent could tell."""
        return self.draws.lead or _lead(self.draws.samples, self.source)

    def effects(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """All latents and params: those among some draws, and where latents are missing, recovered
        ones."""
        every = dict(samples)
        if any(n.name not in samples for n in self.source.latents):
            known = any(n.name in samples for n in self.compiled.program.latents)
            blank = {} if known or self.draws.lead is None else {"": jnp.zeros(self.draws.lead)}
            every = self.marg.recover(
                self.key, blank or dict(samples), *self.args, batch_size=self.batch_size,
                other_data=True, **self.kwargs,
            )  # fmt: skip
        if missing := [n.name for n in self.source.latents if n.name not in every]:
            raise RequestError(
                f"log_likelihood needs draws of {missing}; found only {sorted(samples)}. Pass the "
                "MCMC object or all of mcmc.get_samples()"
            )
        lead = _lead(every, self.source) or self.draws.lead
        if lead is None:
            raise RequestError(
                "the model has no latent site, so a dict of draws does not say how many there are: "
                "expected an MCMC"
            )
        params = {n.name: n.shape for n in self.source.nodes if isinstance(n, Param)}
        given = {
            n: jnp.broadcast_to(every[n], (*lead, *s)) for n, s in params.items() if n in every
        }
        return {n.name: jnp.asarray(every[n.name]) for n in self.source.latents} | given

    def first(self) -> dict[str, Any]:
        """All latents, params and traced constants at the first draw."""
        lead = self.lead
        if lead is None:
            return self.traced | {n: x[0] for n, x in self.effects({"": jnp.zeros(1)}).items()}
        inside = {n: x for n, x in self.draws.samples.items() if jnp.shape(x)[: len(lead)] == lead}
        one = {n: jnp.asarray(x)[(0,) * len(lead)][None] for n, x in inside.items()}
        return self.traced | {n: x[0] for n, x in self.effects(one).items()}


def _lead(samples: Mapping[str, Any], program: Program) -> tuple[int, ...] | None:
    """Leading dimensions of draws of latents; None where there is no latent among them."""
    for node in program.latents:
        if node.name in samples:
            own = jnp.shape(samples[node.name])
            return own[: len(own) - len(node.shape)]
    return None


def log_likelihood(fit: Fit, which: str, by: Any) -> dict[str, Any]:
    """See :meth:`autmarg.posterior.after_fit.AfterFit.log_likelihood`."""
    if which not in WHICH:
        raise RequestError(f"which='{which}' is none of {list(WHICH)}")
    if by is not None and which != "group":
        raise RequestError(f"by= belongs to which='group', and which is '{which}'")
    source, compiled = fit.source, fit.compiled
    if not source.observed:
        raise RequestError(
            f"log_likelihood was called without data: '{source.name}' has no observed site with "
            "these arguments; pass all that the run was given"
        )
    groups = None
    if which == "group":
        groups = groups_of(by, fit.marg.source, source, fit.args, fit.kwargs, fit.first)
    if which == "conditional" or source.obstacles or not compiled.rewritten:
        return _given_effects(fit, groups)
    parts, recovery = Parts.plan(compiled.program, groups), compiled.recovery
    lead, flat = recovery.points(fit.draws.samples, fit.traced, fit.lead, "log_likelihood")
    found = _at_draws(parts, recovery, flat, fit.traced, math.prod(lead), fit.batch_size)
    shaped = {name: x.reshape(*lead, *x.shape[1:]) for name, x in found.items()}
    return {node.name: shaped[node.name] for node in source.observed}


def _given_effects(fit: Fit, groups: Groups | None) -> dict[str, Any]:
    """The source's own log-likelihood, added up by group where there are groups."""
    every = fit.effects(fit.draws.samples)
    lead = _lead(every, fit.source) or fit.draws.lead
    assert lead is not None
    found = of_source(fit.marg.source, every, *fit.args, batch_ndims=len(lead), **fit.kwargs)
    if groups is None:
        return found
    flat = {n: x.reshape(math.prod(lead), -1) for n, x in found.items()}
    sums = {n: _by_group(x, groups.of[n], groups.count) for n, x in flat.items()}
    return {n: x.reshape(*lead, groups.count) for n, x in sums.items()}


@dataclass(frozen=True, eq=False)
class Parts:
    """The observed sites of a rewritten program: those of marginals, and the others.

    Attributes:
        program: the rewritten program.
        marginals: with the observed sites of each.
        others: observed sites whose observations are independent given the kept latents.
        groups: of observations, or None.
    """

    program: Program
    marginals: tuple[tuple[tuple[Observe, ...], Pointwise], ...]
    others: tuple[Observe, ...]
    groups: Groups | None

    @classmethod
    def plan(cls, program: Program, groups: Groups | None) -> Parts:
        """Plan each marginal.

        Raises:
            RequestError: one has no pointwise form.
        """
        members = {r.marginal: r.members for r in program.nodes if isinstance(r, Recover)}
        marginals, others = [], [n for n in program.nodes if isinstance(n, Observe)]
        for node in program.nodes:
            if not isinstance(node, Marginal) or not node.observed:
                continue
            own = members.get(node.name, ())
            if not own:  # its rows are added up, and none was made to depend on another
                others += node.observed
                continue
            marginals.append((node.observed, _planned(program, node, own, groups)))
        return cls(program, tuple(marginals), tuple(others), groups)

    @property
    def numbers(self) -> int:
        """How many numbers one draw needs at least."""
        each = [1]
        for sites, part in self.marginals:
            each.append(sum(n.size for n in sites))
            inner = part.sharing if isinstance(part, ConjugatePointwise) else (part,)
            each += [p.numbers for p in inner]
        return sum(each)

    def at(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """At one draw: results by site, flat, and 1 - h of each Gaussian marginal."""
        found, rooms = {}, []
        for node in self.others:
            found[node.name] = self._independent(node, values)
        for sites, part in self.marginals:
            if isinstance(part, ConjugatePointwise):
                terms = part.terms(values)
            else:
                gain, squares, _, room = part.terms(values)
                terms = part.normalisers(values) + gain - 0.5 * squares
                rooms.append(room)
            found |= self._by_site(sites, terms)
        return found, rooms

    def _independent(self, node: Observe, values: Mapping[str, Any]) -> Any:
        tape = self.program.tape
        fn = node.distribution.build(tape, values)
        terms = fn.log_prob(tape.evaluate([node.value], values)[0])
        terms = jnp.broadcast_to(terms, batch_of(node)).reshape(-1)
        if self.groups is None:
            return terms
        return group_sum(terms, self.groups.of[node.name].reshape(-1), self.groups.count)

    def _by_site(self, sites: tuple[Observe, ...], terms: Any) -> dict[str, Any]:
        """Terms [labels, columns] by site."""
        if self.groups is not None:
            return {node.name: terms[:, k] for k, node in enumerate(sites)}
        ends = np.cumsum([math.prod(batch_of(node)) for node in sites])
        pieces = jnp.split(terms[:, 0], ends[:-1])
        return {node.name: x for node, x in zip(sites, pieces, strict=True)}

    def shaped(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Results [draws, …] in the shapes of the sites' observations."""
        if self.groups is not None:
            return dict(found)
        sites = [*self.others, *(n for sites, _ in self.marginals for n in sites)]
        return {n.name: found[n.name].reshape(-1, *batch_of(n)) for n in sites}


def _planned(
    program: Program, node: Marginal, members: tuple[Any, ...], groups: Groups | None
) -> Pointwise:
    of, count = (None, 0) if groups is None else (groups.of, groups.count)
    if isinstance(node.density, GaussianMarginal):
        return GaussianPointwise.plan(program, node.density, node.observed, members, of, count)
    if isinstance(node.density, ConjugateMarginal):
        return ConjugatePointwise.plan(program, node.density, node.observed, of, count)
    names = named([n.name for n in node.observed])
    if isinstance(node.density, WhitenedMarginal):
        raise RequestError(
            f"log_likelihood has no closed form of {names} with the effects integrated out: its "
            "likelihood is not Gaussian, and they are whitened. Use which='conditional'"
        )
    raise RequestError(
        f"log_likelihood has no pointwise form of the density of {names}, a "
        f"{type(node.density).__name__}: expected a Gaussian marginal or a conjugacy; "
        "which='conditional' works"
    )


def _at_draws(
    parts: Parts,
    recovery: Any,
    flat: Mapping[str, Any],
    traced: Mapping[str, Any],
    count: int,
    batch_size: int | None,
) -> dict[str, Any]:
    """Results at each draw [count, …]; those of rows that lost their digits anew."""

    def at(number: Any, values: Mapping[str, Any], traced: Mapping[str, Any]) -> Any:
        return parts.at(_all(recovery, values, traced))

    together = max(1, min(TOGETHER, int(MEMORY / parts.numbers), batch_size or count))
    batch = max(together, batch_size or count)
    show = count * float(parts.numbers) > LONG
    found, rooms = in_batches(
        at_each(at), np.arange(count), flat, traced,
        batch=batch, together=together, name="log_likelihood", show=show,
    )  # fmt: skip
    plain = [(s, p) for s, p in parts.marginals if isinstance(p, GaussianPointwise)]
    for (sites, part), room in zip(plain, rooms, strict=True):
        found |= _anew(parts, sites, part, room, found, recovery, flat, traced)
    return parts.shaped(found)


def _anew(
    parts: Parts,
    sites: tuple[Observe, ...],
    part: GaussianPointwise,
    room: Any,
    found: Mapping[str, Any],
    recovery: Any,
    flat: Mapping[str, Any],
    traced: Mapping[str, Any],
) -> dict[str, Any]:
    """Results where 1 - h has too few digits, from a difference of log-densities."""
    if isinstance(room, Tracer):  # under jit: which they are is not known
        return {
            n: jnp.where(o < ROOM, jnp.nan, found[n])
            for n, o in parts._by_site(sites, jnp.moveaxis(room, 0, -1)).items()
        }
    draws, labels = np.nonzero(np.asarray(room) < ROOM)
    if not len(draws):
        return {}

    def at(label: Any, values: Mapping[str, Any], traced: Mapping[str, Any]) -> Any:
        given = _all(recovery, values, traced)
        gain, squares, _ = part.again(given, label)
        return (part.normalisers(given)[label] + gain - 0.5 * squares).sum()

    values = {n: x[draws][:, None] for n, x in flat.items()}
    terms = at_each(at)(labels[:, None], values, traced)
    ends = np.cumsum([0, *(math.prod(batch_of(n)) for n in sites)])
    out = {}
    for node, start, end in zip(sites, ends[:-1], ends[1:], strict=True):
        own = np.flatnonzero((labels >= start) & (labels < end))
        out[node.name] = found[node.name].at[draws[own], labels[own] - start].set(terms[own])
    return out


def _all(recovery: Any, values: Mapping[str, Any], traced: Mapping[str, Any]) -> dict[str, Any]:
    """The values with traced constants and non-centred sites."""
    return {**traced, **values, **recovery.met(values, traced)}


def _by_group(terms: Any, groups: np.ndarray, count: int) -> Any:
    """Terms [draws, n] added up by group."""
    return jax.vmap(lambda x: group_sum(x, groups.reshape(-1), count))(terms)


__all__ = ["WHICH", "Fit", "log_likelihood"]
