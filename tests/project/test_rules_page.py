"""docs/rules.md: its program runs as it stands, and its texts are what the package says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import autmarg
from autmarg.conjugacy import registry
from autmarg.conjugacy.registry import shipped

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()
TABLE = PAGE[: PAGE.index("## Writing one")]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_first_rule_is_the_shipped_one():
    (rule,) = (r for r in shipped() if r.name == "gamma_poisson")
    assert blocks("text")[0].split() == rule.text.split()


def test_the_program_runs(monkeypatch, capsys, quick_compilation):
    monkeypatch.setattr(registry, "_added", [])
    program = "\n".join(blocks("python"))
    exec(program, {"__name__": "page"})
    out = capsys.readouterr().out
    assert out.startswith(blocks("text")[1])
    assert "InverseGamma-Gamma rule, 4 pairs" in out and "verify: exact" in out
    assert "InverseGamma-Normal rule, 8 rows" in out


def test_the_residual_is_what_a_wrong_rule_shows():
    program = blocks("python")[0]
    (text,) = re.findall(r'register_rule\("""(.*?)"""\)', program, re.DOTALL)
    with pytest.raises(autmarg.ModelError) as error:
        autmarg.register_rule(text.replace("sum(e * y)", "sum(2 * e * y)"))
    (shown,) = re.findall(r'it is \*"(.*?)"\*', PAGE, re.DOTALL)
    assert shown.replace("\\", "").replace("\n", " ") in str(error.value)


def test_every_shipped_rule_is_in_the_table():
    rows = [line.split("|")[1:3] for line in TABLE.splitlines() if line.startswith("| ")]
    table = {prior.split()[0]: children for prior, children in rows}
    for rule in shipped():
        assert rule.child.family.name in table[rule.prior.family.name]
