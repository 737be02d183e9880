"""Programs on disk: what is read is what was written, and what cannot be written is refused."""

from __future__ import annotations

import jax
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.backend.compiled import compile_program
from autmarg.ir import disk
from autmarg.ir.disk import live, load, save
from autmarg.ir.store import Store, read_program
from autmarg.ir.verifier import check
from autmarg.passes.default import default_passes
from autmarg.trace.capture import trace_program
from examples.models import REFERENCE
from tests.programs import test_strangers as strangers
from tests.programs import test_strangers_series as series
from tests.support.compiled import QUICK, traced
from tests.support.lanes import lanes
from tests.support.programs import CASES


def check_disk(program, path):
    """What is read is what was written, and written again it is the same."""
    save(program, path, {"note": 1})
    found, notes = load(path)
    assert notes == {"note": 1} and str(found) == str(program)
    assert check(found).fingerprint == live(program).fingerprint
    assert read_program(str(program), Store(found)).nodes == found.nodes
    return found


@pytest.mark.parametrize("name", lanes(REFERENCE, QUICK))
def test_reference_models_on_disk(name, arguments, tmp_path):
    model, args = REFERENCE[name].first, arguments(REFERENCE[name])
    check_disk(trace_program(model, args, {})[0], tmp_path / "store")


@pytest.mark.parametrize("name", ["missing_covariate", "kept_child", "hidden_markov", "car_areal"])
def test_programs_on_disk(name, tmp_path):
    other = strangers.CASES | series.CASES
    program = traced(name) if name in CASES else trace_program(other[name][0], (), {})[0]
    check_disk(program, tmp_path / "store")


def test_functions_on_disk_keep_their_own_derivatives(tmp_path):
    def model():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.deterministic("d", jax.nn.softplus(x) + jax.nn.relu(x) + jax.nn.silu(x))

    program = trace_program(model, (), {})[0]
    save(program, tmp_path / "store", {})
    found, _ = load(tmp_path / "store")

    def derivative(program, order):
        def value(x):
            return program.tape.evaluate([program["d"].value], {"x": x})[0]

        for _ in range(order):
            value = jax.grad(value)
        return jax.jit(value)(0.0)

    for order in range(4):
        assert derivative(found, order) == derivative(program, order)


def test_what_has_no_place_in_a_file(tmp_path, monkeypatch):
    class Own(dist.Normal):
        """A class that is not NumPyro's."""

    def model():
        numpyro.sample("x", Own(0.0, 1.0))

    with pytest.raises(autmarg.RequestError, match=r"'x' holds a .*Own, which cannot be stored"):
        save(trace_program(model, (), {})[0], tmp_path / "store", {})
    program = compile_program(traced("radon"), default_passes()).program
    with pytest.raises(autmarg.RequestError, match="expected the program as traced"):
        save(program, tmp_path / "store", {})
    save(traced("radon"), tmp_path / "store", {})
    monkeypatch.setitem(disk._VERSIONS, "jax", "0.0")
    with pytest.raises(autmarg.RequestError, match=r"written under jax .*, this is jax 0\.0"):
        load(tmp_path / "store")
