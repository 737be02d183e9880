"""Meet a kept location-scale latent through standard noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp

from autmarg.analysis.families.location_scale import as_location_scale
from autmarg.ir.nodes import DistributionSpec, NonCentred, Sample, decentered
from autmarg.ir.program import Program
from autmarg.passes.detect import check_unchanged, plan_of


@dataclass(frozen=True)
class NonCentre:
    """Re-express latents that the plan names as images of sites of standard noise.

    Everything that reads the latent reads it still, under its own name.
    """

    name = "noncentre"

    def apply(self, program: Program) -> Iterator[Program]:
        """The program after each site.

        Raises:
            RequestError: there is no plan, or a pass in between changed what it is about.
        """
        plan = plan_of(program, self.name)
        for site in plan.noncentred:
            if site in program:  # else a pass in between integrated it out
                check_unchanged(program, (plan.program[site],), self.name)
                program = self._noncentred(program, site)
                yield program

    def _noncentred(self, program: Program, site: str) -> Program:
        node = program[site]
        assert isinstance(node, Sample)
        base = decentered(node.name)
        tape = program.tape.with_input(base, node.shape, node.dtype)
        image = _Image(node)
        tape, numbers = tape.extend(image, (*node.distribution.values, tape.inputs[base]))
        value, log_jacobian, *leaves = numbers
        spec = DistributionSpec(
            image.treedef, tuple(leaves), image.kind,
            node.distribution.batch_shape, node.distribution.event_shape,
        )  # fmt: skip
        standard = Sample(
            base, tape.dependencies(leaves), node.place, node.plates, distribution=spec,
            shape=node.shape, dtype=node.dtype, sample_shape=node.sample_shape, infer=node.infer,
        )  # fmt: skip
        own = {f.name: getattr(node, f.name) for f in fields(node)}
        new = NonCentred(**own, base=standard, value=value, log_jacobian=log_jacobian)
        return program.replace_nodes([new if n is node else n for n in program.nodes], tape)


class _Image:
    """The traced function *distribution leaves, z → x, log |det dx/dz|, leaves of z's prior*."""

    def __init__(self, node: Sample) -> None:
        self.node = node
        self.treedef: Any = None
        self.kind = ""

    def __call__(self, *arrays: Any) -> list[Any]:
        *leaves, z = arrays
        spec = self.node.distribution
        family = as_location_scale(spec.unflatten(leaves))
        x, log_jacobian = family.image(z)
        self.kind = type(family.standard).__name__
        standard = family.standard.expand((*spec.batch_shape, *spec.event_shape))
        out, self.treedef = jax.tree.flatten(standard.to_event(len(spec.event_shape)))
        x = jnp.broadcast_to(x, self.node.shape).astype(self.node.dtype)
        return [x, log_jacobian, *(jnp.asarray(leaf, self.node.dtype) for leaf in out)]
