"""The speeds of a machine: measured by ``autmarg calibrate``, and what plans make of them."""

from __future__ import annotations

import json
from dataclasses import asdict

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autmarg
from autmarg.__main__ import main
from autmarg.calibrate import measure
from autmarg.plan import machine
from autmarg.plan.machine import REFERENCE, Speeds
from autmarg.plan.pricing import overhead, root_seconds

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.integers(0, 60, 2000), RNG.integers(0, 40, 2000)
Y = RNG.normal(size=2000)
_ZERO = '{"product": 1.0, "element": 0.0, "kernel": 1.0}'


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTMARG_MACHINE", str(tmp_path / "cache" / "machine.json"))
    return tmp_path / "cache" / "machine.json"


def crossed(y):
    tau, omega, sigma = (numpyro.sample(n, dist.HalfNormal(1)) for n in ("tau", "omega", "sigma"))
    u = numpyro.sample("u", dist.Normal(0, tau).expand([60]).to_event(1))
    w = numpyro.sample("w", dist.Normal(0, omega).expand([40]).to_event(1))
    numpyro.sample("y", dist.Normal(u[FIRST] + w[SECOND], sigma), obs=y)


def test_costs_are_in_proportion_to_the_speeds(file):
    before = root_seconds(1000), overhead(0)
    machine.save(Speeds(REFERENCE.product, REFERENCE.element, 3 * REFERENCE.kernel), file)
    assert (root_seconds(1000), overhead(0)) == pytest.approx((before[0], 3 * before[1]))
    machine.save(Speeds(*(2 * speed for speed in asdict(REFERENCE).values())), file)
    assert (root_seconds(1000), overhead(0)) == pytest.approx((2 * before[0], 2 * before[1]))


def test_what_is_cheap_here_is_chosen_here(file):
    """Where products and elements cost nothing beside a step, fewer steps are better."""
    machine.save(Speeds(REFERENCE.product, 10 * REFERENCE.element, REFERENCE.kernel), file)
    assert autmarg.transform(crossed).plan(Y).integrated == ("u",)
    machine.save(Speeds(REFERENCE.product, REFERENCE.element, 10 * REFERENCE.kernel), file)
    assert autmarg.transform(crossed).plan(Y).integrated == ("u", "w")


def test_the_command_measures_and_writes(file, capsys):
    assert main(["calibrate"]) == 0
    assert "times the reference" in capsys.readouterr().out
    assert all(speed > 0 for speed in json.loads(file.read_text()).values())
    assert asdict(machine.slowness()) != asdict(REFERENCE.over(REFERENCE))


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", '{"product": 1.0}', '{"product": "fast"}', _ZERO],
)
def test_a_file_of_something_else_is_said_to_be_one(file, text):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(autmarg.RequestError, match=r"machine.json: expected the speeds that"):
        machine.slowness()


def test_without_a_file_there_is_nothing_to_write_to(monkeypatch, capsys):
    monkeypatch.setenv("AUTMARG_MACHINE", "")
    assert main(["calibrate"]) == 1
    assert "AUTMARG_MACHINE is empty" in capsys.readouterr().err


def test_speeds_are_those_of_double_precision():
    with jax.enable_x64(False), pytest.raises(autmarg.RequestError, match="double precision"):
        measure()
