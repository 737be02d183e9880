"""The package's outside: its grammar files, its top level, and what README.md promises."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from autmarg import commands, grammar_files

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_grammar_is_found_beside_the_package_in_a_checkout():
    folder = ROOT / "grammar"
    names = sorted(path.name for path in folder.glob("*.lark"))
    assert "ir.lark" in names
    for name in names:
        assert grammar_files.read(name) == (folder / name).read_text(encoding="utf-8")


def test_grammar_inside_the_package_comes_first(tmp_path, monkeypatch):
    inside, beside = tmp_path / "autmarg" / "_grammar", tmp_path / "grammar"
    monkeypatch.setattr(grammar_files, "_FOLDERS", (inside, beside))
    beside.mkdir()
    (beside / "ir.lark").write_text("beside", encoding="utf-8")
    assert grammar_files.read("ir.lark") == "beside"
    inside.mkdir(parents=True)
    (inside / "ir.lark").write_text("inside", encoding="utf-8")
    assert grammar_files.read("ir.lark") == "inside"


def test_a_grammar_that_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(grammar_files, "_FOLDERS", (tmp_path / "absent", tmp_path / "neither"))
    with pytest.raises(FileNotFoundError, match=r"'ir\.lark'.*install it again"):
        grammar_files.read("ir.lark")


def test_the_wheel_carries_grammar_and_demo_where_the_loaders_look():
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    demo = commands._DEMO[0].name
    assert wheel["force-include"] == {
        "grammar": "autmarg/_grammar", "examples/demo.py": f"autmarg/{demo}"
    }  # fmt: skip


def declared(lines: list[str]) -> set[str]:
    """The names of requirements, without versions and extras."""
    return {re.split(r"[<>=!~\[ ]", line)[0] for line in lines}


def imported(folder: str) -> set[str]:
    """Other people's modules that a folder imports, also within functions."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).split(".")[0])
    return found - sys.stdlib_module_names - {"autmarg", "examples", "tests", "autmarg_example"}


def test_runtime_dependencies_are_the_agreed_eight():
    names = declared(PYPROJECT["project"]["dependencies"])
    agreed = {"jax", "numpyro", "networkx", "sympy", "numpy", "lark", "scipy", "tqdm"}
    assert names == agreed


def test_everything_imported_is_declared():
    project = PYPROJECT["project"]
    optional = project["optional-dependencies"]
    needed = declared(project["dependencies"])
    extras = declared(optional["arviz"] + optional["demo"] + optional["rich"])
    shapes = {"jaxtyping"}  # for type checkers: under TYPE_CHECKING alone
    assert shapes <= declared(optional["dev"])
    assert needed <= imported("autmarg") <= needed | extras | shapes
    installed = needed | extras | declared(optional["test"])
    assert imported("tests") <= installed


def test_the_top_level_holds_only_what_was_agreed():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: a built source archive adds files of its own")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    top = {line.split("/")[0] for line in listing.stdout.splitlines()}
    agreed = {"pyproject.toml", "README.md", "LICENSE"}
    agreed |= {"autmarg", "grammar", "tests", "examples", "docs"}
    assert {name for name in top if not name.startswith(".")} == agreed


def test_readme_has_one_command_for_the_demo_and_one_for_the_tests():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert [line.rsplit("&& ", 1)[1].split()[:3] for line in commands] == [
        [".venv/bin/python", "-m", "autmarg"],
        [".venv/bin/python", "-m", "pytest"],
    ]
    extras = PYPROJECT["project"]["optional-dependencies"]
    named = [re.findall(r"'\.\[(\w+)\]'", line) for line in commands]
    assert all(len(names) == 1 and names[0] in extras for names in named)
