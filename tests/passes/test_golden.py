"""What every pass does to a small program: golden/<pass>.txt has it before and after."""

from __future__ import annotations

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.backend.compiled import compile_program
from autmarg.passes.pipeline import Step
from autmarg.trace.capture import trace_program
from tests.support import golden

FOLDER = Path(__file__).parent / "golden"
NAMES = autmarg.default_passes().names
SCOPE = {"np": np, "jnp": jnp, "numpyro": numpyro, "dist": dist}
STANDING_IN = {"whiten", "quadrature"}  # passes, and what asks for them
SIZES = r"[;:] [^;]*; [\d.]+ s$"  # of a line of the log; the numbers are JAX's and the machine's


def test_every_pass_has_a_golden_text():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{n}.txt" for n in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_before_and_after(name):
    path, scope, steps = FOLDER / f"{name}.txt", dict(SCOPE), []
    exec(compile(golden.sections(path)["model"], str(path), "exec", dont_inherit=True), scope)

    def keep(step: Step) -> None:
        if step.name == name:
            steps.append(step)

    program = trace_program(scope["model"], (), {})[0]
    nongaussian = name if name in STANDING_IN else "off"
    compiled = compile_program(program, autmarg.default_passes(nongaussian=nongaussian), keep)
    texts = {"log": "\n".join(re.sub(SIZES, "", str(step)) for step in steps)}
    texts |= {"before": str(steps[0].before), "after": str(steps[-1].after)}
    if name in STANDING_IN:
        texts = {title: re.sub(r" #[0-9a-f]+", "", text) for title, text in texts.items()}
    if name == "detect":
        texts["plan"] = str(compiled.plan)
    if name == "simplify":
        sizes = [len(program.tape.equations) for program in (steps[0].before, steps[-1].after)]
        texts["expressions"] = "{} before, {} after".format(*sizes)
    golden.check(path, **texts)
