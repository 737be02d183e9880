"""Run a rewritten program as a NumPyro model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax.core import Tracer
from numpyro import handlers

from autmarg.backend.distributions import (
    AncestralDistribution,
    MarginalDistribution,
    SequentialDistribution,
)
from autmarg.backend.given import as_written, check_shape, is_given
from autmarg.backend.rows import leaves_out_rows
from autmarg.backend.support import is_traced, outside, restricted
from autmarg.compat.correlations import in_closed_form
from autmarg.compat.jaxprs import as_data
from autmarg.errors import ImproperPriorError, InternalError, RequestError
from autmarg.ir.nodes import (
    Ancestral,
    Deterministic,
    Factor,
    Marginal,
    Node,
    NonCentred,
    Observe,
    Param,
    Recover,
    Sample,
)
from autmarg.ir.program import Program


class Emission:
    """One run of a rewritten program in the current NumPyro handlers.

    Args:
        program: the rewritten program.
        traced: values of the traced constants, by their names on the tape.
        prior: (key, values of some sites) → values of all sites, by the source program.
    """

    def __init__(
        self,
        program: Program,
        traced: Mapping[str, Any],
        prior: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        self.program, self.prior = program, prior
        self.values: dict[str, Any] = dict(traced)
        self.members = {
            m.name: m for n in program.nodes if isinstance(n, Recover) for m in n.members
        }
        self._shapes = {n.name: n.shape for n in (*program.latents, *self.members.values())}
        self.replaced: list[Any] = []  # whether deterministic sites have other values, traced
        self._ghosts: dict[str, Any] = {}
        self._ghost_key: Any = None

    def run(self) -> None:
        """Meet every site, in order."""
        self.plates = {p: numpyro.plate(p.name, p.size, dim=p.dim) for p in self.program.plates}
        if any(isinstance(n, Ancestral) for n in self.program.nodes):
            self._ghost_key = numpyro.prng_key()
        waiting = list(self.program.nodes)
        while waiting:
            # In a scan, what reads a site may stand before it.
            node = next((n for n in waiting if not self._waits(n)), waiting[0])
            waiting.remove(node)
            self._site(node)

    def _waits(self, node: Node) -> bool:
        """Whether values that a site reads are still missing (a scanned latent reads itself)."""
        if isinstance(node, Marginal | Recover) or self._is_sequential(node):
            return False
        return not node.parents <= {*self.values, *self.members}

    def _is_sequential(self, node: Node) -> bool:
        return isinstance(node, Sample) and node.scanned and not isinstance(node, Observe)

    def _site(self, node: Node) -> None:
        if isinstance(node, Marginal):
            self._marginal(node)
        elif isinstance(node, NonCentred):
            self._noncentred(node)
        elif isinstance(node, Sample):
            self._sample(node)
        elif isinstance(node, Param):
            self._param(node)
        elif isinstance(node, Deterministic):
            if not node.parents & set(self.members):
                self._deterministic(node)
        elif isinstance(node, Factor):
            numpyro.factor(node.name, self._value(node.value))
        elif not isinstance(node, Recover):
            raise InternalError(f"no emission for a {type(node).__name__} node")

    def _value(self, number: int) -> Any:
        return self.program.tape.evaluate([number], self.values)[0]

    def _inside(self, node: Node) -> contextlib.ExitStack:
        """The node's plates and scale, entered."""
        stack = contextlib.ExitStack()
        if isinstance(node, Sample) and node.scale is not None:
            stack.enter_context(handlers.scale(scale=self._value(node.scale)))
        for plate in node.plates:
            stack.enter_context(self.plates[plate])
        return stack

    def _param(self, node: Param) -> None:
        initial = self._value(node.initial) if isinstance(node.initial, int) else node.initial
        options = node.options.build(self.program.tape, self.values)
        with self._inside(node):
            self.values[node.name] = numpyro.param(node.name, initial, **options)

    def _sample(self, node: Sample) -> None:
        infer = dict(node.infer)
        if isinstance(node, Ancestral):
            fn = self._ancestral(node)
        elif self._is_sequential(node):
            fn = self._sequential(node)
        else:
            fn = in_closed_form(node.distribution.build(self.program.tape, self.values))
        with self._inside(node):
            if isinstance(node, Observe):
                numpyro.sample(node.name, fn, obs=as_data(self._value(node.value)), infer=infer)
                return
            # An ancestral distribution has the sample shape in its batch shape already.
            shape = () if isinstance(fn, AncestralDistribution) else node.sample_shape
            value = numpyro.sample(node.name, fn, sample_shape=shape, infer=infer)
            self.values[node.name] = self._shaped(node, fn, value)

    def _shaped(self, node: Sample, fn: Any, value: Any) -> Any:
        """A value of the site's shape, if a handler gave it: the tape takes no other.

        A plate or a mask outside, by which a site is drawn in another shape, is refused later.
        """
        if jnp.shape(value) == node.shape:
            return value
        if not is_given(node.name, fn, node.sample_shape):
            return value
        check_shape(self.program.name, node.name, jnp.shape(value), node.shape)
        return jnp.broadcast_to(value, node.shape)

    def _deterministic(self, node: Deterministic) -> None:
        """A function of sites; what a handler gives instead is refused, since nothing reads it."""
        value = self._value(node.value)
        found = numpyro.deterministic(node.name, value)
        if found is value:
            return
        same = jnp.allclose(found, value, 1e-4, 1e-6, equal_nan=True)
        if isinstance(same, Tracer):
            self.replaced.append(~same)
        elif not same:
            raise RequestError(
                f"a value was given for the deterministic site '{node.name}' of "
                f"'{self.program.name}' that is not what it computes, and the marginal does not "
                "read it: apply the handler to the model before autmarg.transform"
            )

    def _noncentred(self, node: NonCentred) -> None:
        """Standard noise, and the user's site as a function of it; or as the user wrote it."""
        tape = self.program.tape
        fn = node.distribution.build(tape, self.values)
        standard = node.base.distribution.build(tape, self.values)
        if as_written(node.name, fn, node.sample_shape, standard):
            self._sample(node)
            return
        self._sample(node.base)
        value, slope = self._value(node.value), self._value(node.log_jacobian)
        # (a scale below zero has no logarithm: the source has no density there)
        value = jnp.where(jnp.isnan(slope), jnp.nan, value)
        self.values[node.name] = numpyro.deterministic(node.name, value)

    def _marginal(self, node: Marginal) -> None:
        """Each observed site under its own name; the first carries the joint density."""
        if leaves_out_rows(self.program.name, [site.name for site in node.observed]):
            return
        traced = {n: x for n, x in self.values.items() if n.startswith("@")}
        found = [self._outside(site) for site in node.observed if is_traced(self.program, site)]

        def whole() -> Any:
            density = restricted(node.density.log_density(self.values), found, traced)
            for other in self.replaced:
                density = jnp.where(other, jnp.nan, density)
            return density

        if not node.observed:
            numpyro.factor(node.name, whole())
        for k, site in enumerate(node.observed):
            value = self._observed(site)

            def log_density(first: bool = k == 0) -> Any:
                return whole() if first else 0.0

            fn = MarginalDistribution(site.name, value, log_density)
            numpyro.sample(site.name, fn, obs=value, infer=dict(site.infer))

    def _observed(self, site: Observe) -> Any:
        """The value of an observed site, NaN where it depends on integrated latents."""
        reads = self.program.tape.dependencies([site.value]) & set(self.members)
        unknown = {n: jnp.full(self._shapes[n], jnp.nan, self.members[n].dtype) for n in reads}
        return self.program.tape.evaluate([site.value], {**self.values, **unknown})[0]

    def _outside(self, site: Observe) -> Any:
        """Which elements of an observed value have no density."""
        zeros = {name: jnp.zeros(self._shapes[name]) for name in site.parents & set(self.members)}
        (value,) = self.program.tape.evaluate([site.value], {**zeros, **self.values})
        return outside(self._base(site, site.parents), value)

    def _ancestral(self, node: Ancestral) -> AncestralDistribution:
        tape = self.program.tape
        reads = tape.dependencies(node.distribution.values) & set(self.members)

        def draw(key: Any, joint: bool) -> Any:
            key, own = jax.random.split(key)
            # One ghost of the members serves all kept children of a run: joint draws are joint.
            shared = joint and self._ghost_key is not None
            drawn = (
                self._draw_members(self._ghost_key, self._ghosts)
                if shared
                else (self._draw_members(key, {}))
            )
            given = {**self.values, **drawn}
            if node.scanned:
                return self.prior(own, given)[node.name]
            return node.distribution.build(tape, given).sample(own, node.sample_shape)

        return AncestralDistribution(node.name, self._base(node, reads | node.parents), draw)

    def _sequential(self, node: Sample) -> SequentialDistribution:
        """A latent in a scan, which reads its own past."""

        def draw(key: Any, joint: bool) -> Any:
            return self.prior(key, self.values)[node.name]

        def density(value: Any) -> Any:
            given = {**self.values, node.name: value}
            return node.distribution.build(self.program.tape, given).log_prob(value)

        return SequentialDistribution(node.name, self._base(node, node.parents), draw, density)

    def _base(self, node: Sample, reads: Iterable[str]) -> Any:
        """The node's distribution, zero standing for those sites that it reads and are not met."""
        zeros = {name: jnp.zeros(self._shapes[name]) for name in reads if name in self._shapes}
        base = node.distribution.build(self.program.tape, {**zeros, **self.values})
        return base.expand(node.sample_shape + base.batch_shape)

    def _draw_members(self, key: Any, drawn: dict[str, Any]) -> dict[str, Any]:
        """Add to ``drawn`` the integrated sites whose parents are met, from their prior."""
        for k, member in enumerate(self.members.values()):
            given, own = {**self.values, **drawn}, jax.random.fold_in(key, k)
            reads = self.program.tape.dependencies(member.distribution.values)
            if member.name in drawn:
                continue
            if member.scanned:
                drawn[member.name] = self.prior(own, given)[member.name]
            elif reads <= set(given):
                fn = member.distribution.build(self.program.tape, given)
                drawn[member.name] = _sample(member, fn, own)
        return drawn


def _sample(member: Sample, fn: Any, key: Any) -> Any:
    """A draw from the prior of a member.

    Raises:
        ImproperPriorError: it has none.
    """
    try:
        return fn.sample(key, member.sample_shape)
    except NotImplementedError as error:
        raise ImproperPriorError(
            f"the prior of '{member.name}' ({member.place}) is improper and has no draws, so sites "
            "that read it cannot be drawn from theirs: expected values of the sampled sites, as "
            "from MCMC"
        ) from error
