"""Each stage imports only earlier stages, the IR and the errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import autmarg

PACKAGE = Path(autmarg.__file__).parent
ALLOWED = {
    "errors": set(),
    "grammar_files": set(),
    "notebook": set(),
    "gaussian": {"errors"},
    "ir": {"errors", "grammar_files"},
    "trace": {"ir", "errors"},
    "analysis": {"trace", "ir", "errors", "gaussian"},
    "rules": {"analysis", "ir", "errors", "grammar_files"},
    "plan": {"rules", "analysis", "trace", "ir", "errors", "gaussian"},
    "passes": {"rules", "plan", "analysis", "trace", "ir", "errors", "gaussian"},
    "backend": {"passes", "plan", "trace", "ir", "errors", "gaussian"},
    "posterior": {
        "backend",
        "passes",
        "plan",
        "rules",
        "analysis",
        "trace",
        "ir",
        "errors",
        "gaussian",
        "notebook",
    },
    "report": {"plan", "ir", "errors", "notebook"},
    "pilot": {"report", "plan", "errors", "notebook"},
    "oracle": {"backend", "passes", "plan", "analysis", "trace", "ir", "errors"},
}
# A value prints itself with the report of a later stage, imported when it is printed.
PRINTING = {("plan", "report")}


def imports(path: Path) -> set[str]:
    """Stages of autmarg that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else ([a.name for a in node.names] if isinstance(node, ast.Import) else [])
        )
        for name in names:
            if name and name.startswith("autmarg."):
                found.add(name.split(".")[1])
    return found


@pytest.mark.parametrize("stage", ALLOWED)
def test_a_stage_imports_only_earlier_ones(stage):
    folder = PACKAGE / stage
    files = folder.rglob("*.py") if folder.is_dir() else [PACKAGE / f"{stage}.py"]
    printing = {later for early, later in PRINTING if early == stage}
    for path in files:
        extra = imports(path) - ALLOWED[stage] - {stage} - printing
        assert not extra, f"{path.relative_to(PACKAGE)} imports {sorted(extra)}"


def test_every_stage_is_listed():
    stages = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert stages == {s for s in ALLOWED if (PACKAGE / s).is_dir()}
