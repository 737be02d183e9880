"""The paper's experiments: their programs are the models they claim to be, and a rerun goes on."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

import autmarg
from examples.benchmarks.measure import append
from examples.benchmarks.opponents import Factor
from examples.benchmarks.sets import Set, load_set
from examples.models import REFERENCE
from examples.paper.__main__ import NAMES, parser
from examples.paper.experiments import EXPERIMENTS, Experiment, Length, part
from examples.paper.programs import combinations, named
from examples.paper.report import report
from examples.paper.results import results
from examples.paper.runs import effective, rows, run
from examples.paper.tables import tables

TINY = "crossed:levels=4,rows=40"
RNG = np.random.default_rng(2024)


def ticks() -> Set:
    """The grouse ticks' model on twelve simulated chicks, three broods in two locations."""
    brood = np.repeat(np.arange(3), 4)
    location = np.array([0, 0, 1])[brood]
    args = brood, location, RNG.integers(0, 2, 12), RNG.normal(size=12), RNG.poisson(3, 12)
    factors = Factor.of("brood", brood, [None]), Factor.of("location", location, [None])
    model = REFERENCE["grouseticks"].first
    return Set("grouseticks", args, model, None, dict, "ticks", factors, ("m_b", "m_l", "y", "h"))


def test_one_class_by_hand_with_the_other_non_centred_has_autmargs_density():
    data = ticks()
    programs = {p.name: p for p in combinations(data)}
    assert len(programs) == 10
    by_hand = programs["brood integrated, location non-centred"].make(data).model
    ours = autmarg.transform(data.source, marginalize=["brood"], reparameterize=["location"])
    point = {"m_b": 0.3, "m_l": -0.2, "s_b": 1.2, "s_l": 0.7, "sigma": 2.0, "y": 0.1, "h": -0.4}
    point = {k: jnp.array(v) for k, v in point.items()}
    point["location_decentered"] = jnp.array([0.5, -1.5])
    first, second = (
        jax.jit(lambda p, m=m: log_density(m, data.args, {}, p)[0])(point) for m in (by_hand, ours)
    )
    assert float(first) == pytest.approx(float(second), rel=1e-12)


@pytest.mark.slow
def test_rows_are_appended_and_a_rerun_goes_on(quick_compilation, tmp_path):
    """A chain is run once; after one that was stopped, no other seed is tried."""
    path, length = tmp_path / "short.csv", Length(30, 40, 1, 60.0)
    experiment = Experiment((TINY,), lambda data: iter(()), {})
    data, ours = load_set(TINY), named("autmarg", "all")
    (row,) = rows("cognitive", experiment, data, ours, length, path)
    append(path, [row])
    assert (row["seed"], row["dims"], row["draws"], row["cut"]) == ("0", 2, 40, "")
    assert {pair.split("=")[0] for pair in row["ess"].split(";")} == {
        "beta", "sigma", "tau_u0", "u0",
    }  # fmt: skip
    assert not list(rows("cognitive", experiment, data, ours, length, path))
    (result,) = results(path, "cognitive")
    assert (result.seeds, result.draws, result.ours) == (1, 40, True)
    assert result.per_draw == pytest.approx(row["mean_ess"] / 40)
    assert TINY in tables(path)["cognitive"]
    append(path, [{**row, "program": "source", "cut": "over 9 s: 3 of 40 steps of sampling"}])
    more, source = replace(length, seeds=2), named("source", "source")
    assert not list(rows("cognitive", experiment, data, source, more, path))


def written(path: Path) -> None:
    """A CSV file with a complete chain, a stopped one, and one that was stopped in warm-up."""
    row = {
        "experiment": "grouseticks", "set": "grouseticks", "seed": 0, "dims": 7, "warmup": 50,
        "draws": 100, "cut": "", "leapfrogs": 700, "div": 3, "min_ess": 40.0, "at": "s_l",
        "mean_ess": 80.0, "ess": "s_l=40.0;m_b=120.0", "plan_s": 1.0, "init_s": 2.0,
        "compile_s": 3.0, "warmup_s": 0.5, "sampling_s": 2.0, "recover_s": 0.0,
    }  # fmt: skip
    none = {"draws": 0, "leapfrogs": 0, "div": 0, "min_ess": None, "mean_ess": None, "ess": ""}
    late = {"cut": "over 9 s: 20 of 50 steps of warm-up", **none}
    for name in NAMES:
        own = {**row, "experiment": name}
        if name != "grouseticks":
            own["set"] = name
        names = ["source", "non-centred", "by hand: a", "autmarg"]
        if name == "grouseticks":
            names = ["brood sampled, location sampled", "brood integrated, location integrated"]
        some = [{**own, "program": program} for program in names]
        some[0] |= {"cut": "over 9 s: 100 of 400 steps of sampling"}
        append(path, [*some, {**own, "program": "by hand: b", **late}])


def test_tables_and_figures_come_from_the_file_alone(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "short.csv"
    written(path)
    assert report(path, tmp_path, "short") == 0
    shown = capsys.readouterr().out
    assert "over 9 s: 20 of 50 steps of warm-up" in shown
    assert re.search(r"brood sampled, location sampled \| +7 \| +30 \|", shown)
    for name in NAMES:
        text = (tmp_path / f"paper-{name}.svg").read_text()
        assert "<svg" in text and len(text) < 100_000
    assert (tmp_path / "tables-short.md").read_text().count("## ") == 4


def test_without_rows_one_is_told_what_to_do(tmp_path, capsys):
    assert report(tmp_path / "short.csv", tmp_path, "short") == 1
    assert "run python -m examples.paper first" in capsys.readouterr().err


def test_fewer_rows_of_the_evaluations_have_levels_without_gaps():
    student, instructor = RNG.integers(0, 30, 200), RNG.integers(0, 12, 200)
    department, service, y = instructor % 3, RNG.integers(0, 2, 200), RNG.normal(size=200)
    levels = {"s": student, "d": instructor, "p": department}
    factors = tuple(Factor.of(name, level, [None]) for name, level in levels.items())
    args = student, instructor, department, service, y
    whole = Set("insteval", args, REFERENCE["insteval"].first, None, dict, "y", factors, ())
    some = part(whole, (student < 9) & (instructor < 5))
    assert some.rows == ((student < 9) & (instructor < 5)).sum()
    for k, name in enumerate("sdp"):
        (factor,) = (f for f in some.factors if f.effects == (name,))
        assert factor.level is some.args[k]
        assert set(factor.level) == set(range(factor.levels))


def test_effective_sizes_leave_constants_out_and_see_a_chain_that_never_moved():
    moving = {"L": np.stack([np.ones(60), RNG.normal(size=60)], 1), "one": np.ones((60, 1))}
    assert {name: len(size) for name, size in effective(moving).items()} == {"L": 1}
    assert effective({"x": np.zeros((60, 2))})["x"].tolist() == [1, 1]


@pytest.mark.slow
def test_a_small_real_set(quick_compilation, data, tmp_path, monkeypatch, capsys):
    data("electric")
    times = EXPERIMENTS["times"]
    short = replace(times.lengths["short"], warmup=60, draws=60)
    monkeypatch.setitem(EXPERIMENTS, "times", replace(times, lengths={"short": short}))
    words = ["--only", "times", "--sets", "electric", "--out", str(tmp_path)]
    run(parser().parse_args(words), "short", tmp_path / "short.csv")
    found = {r.program: r for r in results(tmp_path / "short.csv", "times")}
    assert [*found] == ["source", "non-centred", "by hand: a", "autmarg", "autmarg, marg.nuts()"]
    assert [r.dims for r in found.values()] == [108, 108, 12, 4, 4]
    assert found["autmarg"].per_draw > found["source"].per_draw
    assert "electric, 192 rows" in capsys.readouterr().out


@pytest.mark.slow
def test_without_data_the_command_says_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTMARG_DATA", str(tmp_path))
    words = ["--only", "cognitive", "--sets", "dutch", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "examples.paper", *words],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    assert "the data set 'dutch' is not at" in done.stderr and "Traceback" not in done.stderr
