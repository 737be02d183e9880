"""Both sides of log p(θ, u, y) = log p_marg(θ, y) + log p_recover(u | θ, y), node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from autmarg.backend.recovery import Recovery
from autmarg.compat.numpyro import compute_log_probs
from autmarg.compat.xla import quick
from autmarg.ir.nodes import Marginal, Recover
from autmarg.oracle.points import Points, Scale, kept_at, prior_draw, quick_key
from autmarg.oracle.rounding import Terms, terms_of
from autmarg.plan.plan import Plan

Model = Callable[..., Any]
REST = "other sites"


@dataclass(frozen=True)
class Found:
    """What was evaluated at P points.

    Attributes:
        errors: node → source minus ours, [P].
        sites: site → the source's log-density, [P].
        rounding: what moving all numbers by a rounding does to the sum, and what eliminating by
            cross-products may lose beside, [P].
        magnitude: Σ|log p_i| over the elements of all sites, [P].
        drawn: site → whether the source's own draw of it is finite, [P].
        ours: whether autmarg's draw of what it integrates out is finite, [P].
        scales: scale → its least value, [P].
        target: autmarg's log p(θ, y), [P].
    """

    errors: dict[str, np.ndarray]
    sites: dict[str, np.ndarray]
    rounding: np.ndarray
    magnitude: np.ndarray
    drawn: dict[str, np.ndarray]
    ours: np.ndarray
    scales: dict[str, np.ndarray]
    target: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Errors of the identity in nats, [P]."""
        return np.sum([*self.errors.values()], axis=0)

    @property
    def log_density(self) -> np.ndarray:
        """log p(θ, u, y) of the source, [P]."""
        return np.sum([*self.sites.values()], axis=0)


@dataclass(frozen=True)
class Identity:
    """A source program and a transformed one that should have its density.

    Attributes:
        source, target: NumPyro models.
        args, kwargs: what both are called with.
        plan, recovery, traced: of the transformed model.
        scales: kept latents whose orders of magnitude are visited.
    """

    source: Model
    target: Model
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    plan: Plan
    recovery: Recovery
    traced: Mapping[str, Any]
    scales: tuple[Scale, ...]

    def at(self, points: Points) -> Found:
        """Evaluate both sides at every point, in one compiled program."""
        arrays = points.arrays
        run = jax.jit(lambda *arrays: jax.lax.map(lambda each: self._at(*each), arrays))
        found = run.lower(*arrays).compile(compiler_options=quick())(*arrays)
        double = jax.tree.map(lambda x: np.asarray(x, bool if x.dtype == bool else float), found)
        return Found(*double)

    def _at(self, key: Any, stretch: Any, exponents: Any) -> tuple[Any, ...]:
        first, second, third = jax.random.split(key, 3)
        drawn = prior_draw(self.source, self.args, self.kwargs, first)
        theta = kept_at(
            self.recovery,
            self.plan.kept,
            self.scales,
            drawn,
            self.traced,
            third,
            exponents,
            stretch,
        )
        members, conditional = self._conditional(second, theta, stretch)
        # The source says whether it has a density at θ also where we could give it no numbers.
        ours = jnp.asarray([jnp.isfinite(x).all() for x in members.values()]).all()
        given = {n: jnp.where(ours, x, drawn[n].astype(x.dtype)) for n, x in members.items()}
        source = self._source({n: x for n, x in theta.items() if n not in self._noise} | given)
        target = self._target(theta)
        errors = dict(self._differences(source.sites, target, conditional))
        finite = {name: jnp.isfinite(x).all() for name, x in drawn.items() if _is_real(x)}
        least = {s.name: jnp.min(jnp.abs(theta[s.name])) for s in self.scales if not s.logarithm}
        least |= {s.name: jnp.min(theta[s.name]) for s in self.scales if s.logarithm}
        density = sum((jnp.sum(x) for x in target.values()), jnp.zeros(()))
        rounding = source.rounding + self.recovery.lost({**self.traced, **theta})
        return errors, source.sites, rounding, source.magnitude, finite, ours, least, density

    def _conditional(
        self, key: Any, theta: Mapping[str, Any], stretch: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Integrated sites as recovery draws them, and marginal → their log-density.

        Near the centre it is the sampler's own, from its noise; far from it the formula's.
        """
        given, members, logs = {**self.traced, **theta}, {}, {}
        for k, node in enumerate(self.recovery.nodes):
            own = jax.random.fold_in(key, k)
            flat, sampled = node.density.draw(given, own, stretch)
            drawn = {m.name: flat[m.name].reshape(m.shape) for m in node.members}
            formula = node.density.log_conditional(given, drawn)
            logs[node.marginal] = jnp.where(stretch == 1, sampled, formula)
            members |= drawn
        return members, logs

    # Seeded, for models that draw keys of their own; then both sides draw the same.
    def _source(self, values: Mapping[str, Any]) -> Terms:
        return terms_of(handlers.seed(self.source, quick_key(0)), self.args, self.kwargs, values)

    def _target(self, theta: Mapping[str, Any]) -> dict[str, Any]:
        """The transformed model's terms, those of non-centred sites as densities of the user's."""
        images = {n.name for n in self.recovery.noncentred}
        met = {name: value for name, value in theta.items() if name not in images}
        model = handlers.seed(self.target, quick_key(0))
        logs = compute_log_probs(model, self.args, dict(self.kwargs), met)[0]
        tape = self.recovery.program.tape
        for node in self.recovery.noncentred:
            (slope,) = tape.evaluate([node.log_jacobian], {**self.traced, **theta})
            logs[node.name] = logs.pop(node.base.name) - slope.sum()
        return logs

    @cached_property
    def _noise(self) -> frozenset[str]:
        return frozenset(n.base.name for n in self.recovery.noncentred) | set(self.recovery.noise)

    def _differences(
        self, source: Mapping[str, Any], target: Mapping[str, Any], conditional: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """Node → the source's terms of its sites, minus ours."""
        left, right = dict(source), dict(target)
        for name, sites in self.scopes.items():
            own = sum(left.pop(site) for site in sites if site in left)
            ours = sum(right.pop(site) for site in (name, *sites) if site in right)
            yield name, own - ours - conditional.get(name, 0.0)
        for name in sorted(set(left) & set(right)):
            yield name, left.pop(name) - right.pop(name)
        if left or right:
            yield REST, sum(left.values()) - sum(right.values())

    @cached_property
    def scopes(self) -> dict[str, tuple[str, ...]]:
        """Marginal → the sites whose densities it has, what is integrated out included."""
        nodes = self.recovery.program.nodes
        members = {
            n.marginal: (*n.integrated, *([n.noise] if n.noise else []))
            for n in nodes
            if isinstance(n, Recover)
        }
        marginals = {n.name: n for n in nodes if isinstance(n, Marginal)}
        own = {
            name: (*(o.name for o in node.observed), *node.children)
            for name, node in marginals.items()
        }
        return {
            name: (*members.get(name, ()), *own.get(name, ())) for name in {**members, **marginals}
        }


def _is_real(x: Any) -> bool:
    return isinstance(x, jax.Array) and bool(jnp.issubdtype(x.dtype, jnp.floating))


__all__ = ["REST", "Found", "Identity"]
