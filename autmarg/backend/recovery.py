"""Exact draws, or conditional moments, of everything that was integrated out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.backend.batches import LONG, MEMORY, TOGETHER, at_each, in_batches
from autmarg.backend.integrals import Integrals
from autmarg.compat.jaxprs import is_traced
from autmarg.errors import RequestError, did_you_mean
from autmarg.gaussian.marginal import GaussianMarginal
from autmarg.ir.nodes import Deterministic, NonCentred, Param, Recover, Sample
from autmarg.ir.program import Program


class Recovery:
    """Compiled recovery for one rewritten program.

    Args:
        program: a rewritten program with :class:`Recover` nodes.

    Attributes:
        noise: sites of standard noise of which integrated ones are functions → elements.
        integrals: those by quadrature.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = [n for n in program.nodes if isinstance(n, Recover)]
        self.noncentred = [n for n in program.nodes if isinstance(n, NonCentred)]
        self.noise = {n.noise: n.density.columns for n in self.nodes if n.noise}
        self.inputs = [n for n in program.nodes if isinstance(n, Param)]
        self.members = {m.name: m for n in self.nodes for m in n.members}
        self.integrals = Integrals.of(self.nodes)
        self._draw = at_each(self._draw_of_one)
        self._moments = at_each(self._moments_of_one)
        self._sizes = at_each(self._sizes_of_one)

    @property
    def kept(self) -> list[Sample]:
        """Latent sites whose draws recovery needs."""
        return list(self.program.latents)

    def draw(
        self, key: Any, values: Mapping[str, Any], traced: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One joint draw of the integrated sites, and the deterministic sites, at one point."""
        met = self.met(values, traced)
        drawn, _ = self.draw_with_density(key, {**values, **met}, traced)
        return met | drawn | self.deterministic({**traced, **values, **met, **drawn})

    def _draw_of_one(
        self, number: Any, values: Mapping[str, Any], given: tuple[Any, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The draw of that number; ``given`` are the key of all draws and the traced constants."""
        key, traced = given
        return self.draw(jax.random.fold_in(key, number), values, traced)

    def met(self, values: Mapping[str, Any], traced: Mapping[str, Any]) -> dict[str, Any]:
        """Non-centred sites of which only the standard noise is given."""
        met: dict[str, Any] = {}
        for node in self.noncentred:
            if node.name not in values:
                given = {**traced, **values, **met}
                (met[node.name],) = self.program.tape.evaluate([node.value], given)
        return met

    def draw_with_density(
        self,
        key: Any,
        values: Mapping[str, Any],
        traced: Mapping[str, Any],
        stretch: float = 1.0,
    ) -> tuple[dict[str, Any], Any]:
        """One joint draw of the integrated sites and log p(draw | y, θ) as the sampler has it.

        ``stretch`` is how many times as far from the posterior's centre the draw lies.
        """
        given, drawn, total = {**traced, **values}, {}, 0.0
        for k, node in enumerate(self.nodes):
            if _is_drawn(node, given):
                drawn |= {m.name: given[m.name] for m in node.members}
                continue
            flat, log_density = node.density.draw(given, jax.random.fold_in(key, k), stretch)
            drawn |= {m.name: flat[m.name].reshape(m.shape) for m in node.members}
            total = total + log_density
        return drawn, total

    def lost(self, values: Mapping[str, Any]) -> Any:
        """Nats by which the marginals say that they may be off; zero where they cannot say."""
        densities = (n.density for n in self.nodes if isinstance(n.density, GaussianMarginal))
        total = sum((each.lost(values) for each in densities), jnp.zeros(()))
        return jnp.nan_to_num(total, posinf=0.0)

    def log_conditional(self, values: Mapping[str, Any], members: Mapping[str, Any]) -> Any:
        """log p(members | y, θ) at any values of the members."""
        return sum(
            node.density.log_conditional(values, {m.name: members[m.name] for m in node.members})
            for node in self.nodes
        )

    def moments(
        self, values: Mapping[str, Any], traced: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Conditional mean and variance of each integrated site at one point."""
        out = {}
        given = {**traced, **values, **self.met(values, traced)}
        for node in self.nodes:
            if _is_drawn(node, given):
                flat = {m.name: (given[m.name], jnp.zeros(m.shape)) for m in node.members}
            else:
                flat = node.density.moments(given)
            for m in node.members:
                mean, variance = flat[m.name]
                out[m.name] = {"mean": mean.reshape(m.shape), "var": variance.reshape(m.shape)}
        return out

    def _moments_of_one(
        self, number: Any, values: Mapping[str, Any], given: tuple[Any, Mapping[str, Any]]
    ) -> Any:
        """As :meth:`moments`; the numbers say how many there are where no latent is kept."""
        return self.moments(values, given[1])

    def deterministic(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All deterministic sites at values of all latents."""
        nodes = [n for n in self.program.nodes if isinstance(n, Deterministic)]
        outs = self.program.tape.evaluate([n.value for n in nodes], values)
        return {n.name: jnp.asarray(v) for n, v in zip(nodes, outs, strict=True)}

    def run(
        self,
        key: Any,
        samples: Mapping[str, Any],
        traced: Mapping[str, Any],
        *,
        draws: tuple[int, ...] | None,
        moments: bool,
        batch_size: int | None,
        progress: bool | None,
    ) -> dict[str, Any]:
        """Recover for arrays of draws with any leading dimensions.

        ``draws`` are these dimensions where they are known, also of an empty ``samples``.

        Raises:
            RequestError: a kept site is missing or has another shape than in the model, or there
                are no draws.
        """
        lead, flat = self.points(samples, traced, draws)
        count = math.prod(lead)
        self._check(flat, traced, count)
        elements = sum(m.size for m in self.members.values()) + 1
        batch = batch_size or max(1, min(count, int(MEMORY / elements)))
        together = min(batch, TOGETHER)
        show = progress if progress is not None else count * float(elements) > LONG
        joined = in_batches(
            self._moments if moments else self._draw, np.arange(count), flat, (key, traced),
            batch=batch, together=together, name="recover", show=show,
        )  # fmt: skip
        recovered = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), joined)
        noise = {n.base.name for n in self.noncentred} | set(self.noise)
        own = {name: value for name, value in samples.items() if name not in noise}
        return recovered if moments else self._ordered({**own, **recovered})

    def check(self, samples: Mapping[str, Any], method: str) -> str:
        """How far integrals by quadrature are to be trusted at draws of known data, in words.

        Args:
            samples: as for :meth:`run`.
            method: what has drawn them, for messages.

        Raises:
            RequestError: more nodes would change what the draws say.
        """
        lead, flat = self.points(samples, {}, None, method)
        return self._check(flat, {}, math.prod(lead))

    def _check(self, flat: Mapping[str, Any], traced: Mapping[str, Any], count: int) -> str:
        if not self.integrals.found or is_traced((flat, traced)):
            return ""  # (inside of another program no number can be looked at)
        at = self.integrals.places(count)
        rows = {name: np.asarray(x)[at] for name, x in flat.items()}
        return self.integrals.check(
            in_batches(
                self._sizes, at, rows, traced,
                batch=len(at), together=1, name="quadrature", show=False,
            )
        )  # fmt: skip

    def _sizes_of_one(
        self, number: Any, values: Mapping[str, Any], traced: Mapping[str, Any]
    ) -> Any:
        """What tells whether integrals are to be trusted at one draw, of that number."""
        return self.integrals.sizes({**traced, **values, **self.met(values, traced)})

    def points(
        self,
        samples: Mapping[str, Any],
        traced: Mapping[str, Any],
        draws: tuple[int, ...] | None,
        method: str = "recover",
    ) -> tuple[tuple[int, ...], dict[str, Any]]:
        """Leading dimensions of draws, and the kept sites and params with them flattened to one.

        ``method`` is what needs them, for messages; the rest is as for :meth:`run`.
        """
        lead, flat = self._flatten(samples, draws, method)
        flat |= self._params(samples, traced, lead, method)
        if not math.prod(lead):
            raise RequestError(
                f"{method} was given no draws (their leading dimensions are {lead}): expected at "
                "least one"
            )
        return lead, flat

    def _ordered(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: jnp.asarray(value) for name, value in values.items()}

    def _flatten(
        self, samples: Mapping[str, Any], draws: tuple[int, ...] | None, method: str
    ) -> tuple[tuple[int, ...], dict[str, Any]]:
        """Leading dimensions, and kept sites with them flattened to one."""
        lead: tuple[int, ...] | None = None
        flat = {}
        needed = {n.name: n.shape for n in self.kept}
        for node in self.noncentred:
            if node.name not in samples and node.base.name in samples:
                needed[node.base.name] = needed.pop(node.name)
        for node in self.nodes:
            if _is_drawn(node, samples):
                needed.pop(node.noise)
                needed |= {m.name: m.shape for m in node.members}
        if not needed:  # every latent is integrated out: any array says how many draws
            params = {n.name for n in self.inputs}
            others = [value for name, value in samples.items() if name not in params]
            if not others and draws is None:
                raise RequestError(
                    "every latent site was integrated out, so there are no draws to recover from; "
                    "expected a dict with any array of the wanted shape, e.g. "
                    "{'draw': jnp.zeros(1000)}"
                )
            lead = jnp.shape(others[0]) if draws is None else draws
        for name, shape in needed.items():
            if name not in samples:
                raise RequestError(
                    f"{method} needs draws of the sampled site '{name}'; found only "
                    f"{sorted(samples)}{did_you_mean(name, samples)}. Pass the MCMC object or all "
                    "of mcmc.get_samples()."
                )
            value = jnp.asarray(samples[name])
            own = value.shape[: value.ndim - len(shape)]
            if value.shape != (*own, *shape) or (lead is not None and own != lead):
                wanted = (*(lead or ("draws",)), *shape)
                raise RequestError(f"draws of '{name}' have shape {value.shape}; expected {wanted}")
            lead = own
            flat[name] = value.reshape(math.prod(own), *shape)
        assert lead is not None
        return lead, flat

    def _params(
        self,
        samples: Mapping[str, Any],
        traced: Mapping[str, Any],
        lead: tuple[int, ...],
        method: str,
    ) -> dict[str, Any]:
        """Params as given with the draws (one value, or one a draw), else their initial values."""
        flat = {}
        for node in self.inputs:
            if node.name in samples:
                value = jnp.asarray(samples[node.name])
            elif isinstance(node.initial, int):
                (value,) = self.program.tape.evaluate([node.initial], traced)
            else:
                raise RequestError(
                    f"the param '{node.name}' has a random initial value, so {method} cannot know "
                    f"it: expected its value among the draws, found only {sorted(samples)}"
                )
            if jnp.shape(value) not in (node.shape, (*lead, *node.shape)):
                raise RequestError(
                    f"param '{node.name}' has shape {jnp.shape(value)}; expected {node.shape}"
                )
            value = jnp.broadcast_to(value, (*lead, *node.shape))
            flat[node.name] = value.reshape(math.prod(lead), *node.shape)
        return flat


def _is_drawn(node: Recover, values: Mapping[str, Any]) -> bool:
    """Whether effects are known that standard noise makes, and not their noise.

    Draws that were recovered, or saved, have them without it.
    """
    return (
        bool(node.noise)
        and node.noise not in values
        and all(m.name in values for m in node.members)
    )
