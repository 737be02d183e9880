"""Each stage imports only earlier stages, the IR and the errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import autmarg

PACKAGE = Path(autmarg.__file__).parent
ALLOWED = {
    "errors": set(),
    "compat": {"errors"},
    "grammar_files": set(),
    "notebook": set(),
    "progress": set(),
    "gaussian": {"compat", "errors"},
    "ir": {"compat", "errors", "grammar_files"},
    "trace": {"ir", "compat", "errors"},
    "analysis": {"trace", "ir", "compat", "errors", "gaussian"},
    "conjugacy": {"analysis", "ir", "compat", "errors", "gaussian", "grammar_files"},
    "aggregation": {"analysis", "ir", "compat", "errors", "gaussian"},
    "plan": {"aggregation", "conjugacy", "analysis", "trace", "ir", "compat", "errors", "gaussian"},
    "whitening": {"aggregation", "analysis", "ir", "compat", "errors", "gaussian"},
    "quadrature": {"aggregation", "whitening", "analysis", "ir", "compat", "errors", "gaussian"},
    "passes": {
        "aggregation",
        "quadrature",
        "whitening",
        "conjugacy",
        "plan",
        "analysis",
        "trace",
        "ir",
        "compat",
        "errors",
        "gaussian",
    },
    "backend": {
        "passes",
        "plan",
        "conjugacy",
        "analysis",
        "trace",
        "ir",
        "compat",
        "errors",
        "gaussian",
        "progress",
    },
    "posterior": {
        "backend",
        "whitening",
        "passes",
        "plan",
        "conjugacy",
        "analysis",
        "trace",
        "ir",
        "compat",
        "errors",
        "gaussian",
        "notebook",
    },
    "sampling": {
        "posterior",
        "backend",
        "plan",
        "trace",
        "ir",
        "compat",
        "errors",
        "progress",
    },
    "report": {"aggregation", "plan", "analysis", "ir", "compat", "errors", "gaussian", "notebook"},
    "pilot": {"report", "plan", "errors", "notebook"},
    "oracle": {"backend", "passes", "plan", "analysis", "trace", "ir", "compat", "errors"},
}
# A value prints itself with the report of a later stage, imported when it is printed.
PRINTING = {("plan", "report")}


def modules(path: Path) -> set[str]:
    """Modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found


def imports(path: Path) -> set[str]:
    """Stages of autmarg that a file imports."""
    return {name.split(".")[1] for name in modules(path) if name.startswith("autmarg.")}


@pytest.mark.parametrize("stage", ALLOWED)
def test_a_stage_imports_only_earlier_ones(stage):
    folder = PACKAGE / stage
    files = folder.rglob("*.py") if folder.is_dir() else [PACKAGE / f"{stage}.py"]
    printing = {later for early, later in PRINTING if early == stage}
    for path in files:
        extra = imports(path) - ALLOWED[stage] - {stage} - printing
        assert not extra, f"{path.relative_to(PACKAGE)} imports {sorted(extra)}"


def test_the_decision_holds_no_jax():
    """A plan is plain data, decided with NumPy: what traces or compiles is in other stages."""
    for path in (PACKAGE / "plan").rglob("*.py"):
        used = {name.split(".")[0] for name in modules(path)} & {"jax", "jaxlib", "numpyro"}
        assert not used, f"{path.relative_to(PACKAGE)} imports {sorted(used)}"


def test_every_stage_is_listed():
    stages = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert stages == {s for s in ALLOWED if (PACKAGE / s).is_dir()}
