"""Which elements of a program's latents draws know, and which levels are new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autmarg.errors import RequestError, did_you_mean, named
from autmarg.ir.nodes import Deterministic, Observe, Sample
from autmarg.ir.program import Program
from autmarg.posterior.draws import Draws

Array = jax.Array


@dataclass(frozen=True, eq=False)
class Known:
    """What the draws say of one site.

    Attributes:
        values: [draws, *shape], with zeros where ``mask`` is false.
        mask: [*shape], which elements are known: a leading part along each axis.
        shape: of that part.
    """

    values: Array
    mask: np.ndarray
    shape: tuple[int, ...]

    @property
    def grown(self) -> frozenset[int]:
        """Axes, counted from the end, along which elements are new."""
        own = zip(self.shape, self.mask.shape, strict=True)
        return frozenset(k - len(self.shape) for k, (n, m) in enumerate(own) if n != m)

    @classmethod
    def of(cls, values: Array, shape: tuple[int, ...]) -> Known:
        """``values`` [draws, *known shape] as the leading part of a site of another shape."""
        own = values.shape[1:]
        mask = np.zeros(shape, bool)
        mask[tuple(map(slice, own))] = True
        widths = [(0, 0), *((0, m - n) for n, m in zip(own, shape, strict=True))]
        return cls(jnp.pad(values, widths) if own != shape else values, mask, own)


@dataclass(frozen=True, eq=False)
class Fit:
    """Posterior draws of every latent, and the program that they were drawn for.

    Attributes:
        draws: with leading dimensions; those of a dict are None until a program tells them.
        program: of the run's arguments, or None where these are not known.
        arguments: the run's, or None.
        constants: values of the program's traced constants.
    """

    draws: Draws
    program: Program | None = None
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    constants: Mapping[str, Any] | None = None

    @property
    def latents(self) -> set[str]:
        """Latents whose draws are used: those of the run that something with a density read.

        One that nothing read has its prior given its parents for a posterior, and parents may
        change with the arguments: it is drawn anew, as an observed site is.
        """
        if self.program is None:
            return set(self.draws.samples)
        return {n.name for n in self.program.latents if is_read(self.program, n.name)}


def is_read(program: Program, name: str) -> bool:
    """Whether a density reads a latent."""
    return any(not isinstance(node, Deterministic) for node in program.children(name))


def leading(program: Program, fit: Fit) -> tuple[int, ...]:
    """The draws' leading dimensions, (draws,) or (chains, draws).

    Raises:
        RequestError: there are no draws of any latent of the program.
    """
    if fit.draws.lead is not None:
        return fit.draws.lead
    samples = fit.draws.samples
    for node in program.latents:
        if node.name in samples and node.name in fit.latents:
            shape = np.shape(samples[node.name])
            return shape[: max(0, len(shape) - len(node.shape))]
    raise RequestError(
        f"predict was given draws of {sorted(samples)}, and the latent sites of '{program.name}' "
        f"are {[n.name for n in program.latents]}: expected draws of these"
    )


def known_levels(
    program: Program, fit: Fit, lead: tuple[int, ...], new_levels: tuple[str, ...]
) -> dict[str, Known]:
    """What the draws say of each latent of a program; sites that are not there are all new.

    Args:
        program: of the new arguments.
        fit: draws of every latent of the run.
        lead: the draws' leading dimensions.
        new_levels: sites that are drawn anew as a whole.

    Raises:
        RequestError: a name in ``new_levels`` is none of the program's latents; draws have a shape
            that the site cannot have grown from.
    """
    latents = {n.name: n for n in program.latents}
    for name in new_levels:
        if name not in latents:
            raise RequestError(
                f"new_levels has '{name}', not a latent site of '{program.name}' with "
                f"these arguments: expected some of {sorted(latents)}{did_you_mean(name, latents)}"
            )
    found = {}
    for name, node in latents.items():
        if name in fit.latents and name in fit.draws.samples and name not in new_levels:
            found[name] = _known(node, jnp.asarray(fit.draws.samples[name]), lead)
    return found


def _known(node: Sample, draws: Array, lead: tuple[int, ...]) -> Known:
    own, shape = draws.shape[len(lead) :], node.shape
    if draws.shape[: len(lead)] != lead or len(own) != len(shape):
        raise RequestError(
            f"draws of '{node.name}' have shape {draws.shape}, and the site has the shape {shape} "
            f"with these arguments: expected draws of shape {(*lead, *shape)}, or fewer elements "
            "where levels are new"
        )
    if any(n > m for n, m in zip(own, shape, strict=True)):
        raise RequestError(
            f"'{node.name}' has shape {shape} with these arguments and {own} in the fit: expected "
            "at least the fit's elements, numbered as in the fit. Pass the fit's number of levels "
            f"(new ones come after them), or new_levels=['{node.name}'] if all elements are new "
            "here, e.g. because each belongs to a row"
        )
    values = draws.reshape(-1, *own).astype(node.dtype)
    return Known.of(values, shape)


def check_sites(
    program: Program, fit: Fit, new_levels: tuple[str, ...], integrated: set[str]
) -> None:
    """Raise where a site without draws should have some.

    Args:
        program: of the new arguments.
        fit: draws, and what they were drawn for.
        new_levels: sites that are drawn anew on purpose.
        integrated: sites that this model has integrated out in this process.

    Raises:
        RequestError: a latent of the fit has no draws; a site has another name than in the fit.
    """
    there = {*fit.draws.samples, *new_levels}
    latents = {n.name for n in program.latents}
    if fit.program is None:
        read = {n for n in latents if program.children(n)}
        missing = sorted((latents - there) & (read | integrated))
        if missing:
            raise RequestError(
                f"predict found no draws of {named(missing)}: pass the MCMC or what marg.recover "
                "returned; if the fit observed it, or is without it, also pass the run's arguments "
                "as fitted=(…)"
            )
        return
    if missing := sorted((fit.latents & latents) - there):
        raise RequestError(
            f"predict found no draws of {named(missing)}, latent in the fit: pass the MCMC or what "
            f"marg.recover returned, or new_levels={missing} if all elements are new here"
        )
    ran = {n.name for n in fit.program.nodes}
    added, gone = sorted(latents - ran - set(new_levels)), sorted(fit.latents - latents)
    if added and gone:
        raise RequestError(
            f"'{program.name}' has {named(added)} with these arguments and had {named(gone)} in "
            "the fit: expected sites of the same names. To draw new sites from their prior, pass "
            f"new_levels={added}"
        )


def observed_past(program: Program, fit: Fit, count: int) -> dict[str, Known]:
    """Data of the fit that the steps of a scan read, as the known part of a longer chain.

    Args:
        program: of the new arguments.
        fit: of the run.
        count: number of draws.

    Raises:
        RequestError: their shape has another number of series, or they depend on latents.
    """
    found, constants = {}, dict(fit.constants or {})
    for node in program.latents:
        if not (node.scanned and program.children(node.name)):
            continue
        if fit.program is None or node.name not in fit.program or node.name in fit.latents:
            continue
        seen, tape = fit.program[node.name], fit.program.tape
        if not isinstance(seen, Observe) or seen.shape[0] >= node.shape[0]:
            continue  # as many steps or fewer: replicates of the whole series
        if seen.shape[1:] != node.shape[1:] or tape.dependencies([seen.value]) - set(constants):
            raise RequestError(
                f"predict cannot continue '{node.name}': later steps read it, and its shape is "
                f"{node.shape} here and {seen.shape} in the fit, or its data depend on latents"
            )
        (data,) = tape.evaluate([seen.value], constants)
        values = jnp.broadcast_to(jnp.asarray(data, node.dtype), (count, *seen.shape))
        found[node.name] = Known.of(values, node.shape)
    return found
