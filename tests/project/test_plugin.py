"""A package of its own adds a family, a rule, a pass and an elimination stage.

It is not installed where the tests run, since its stage would then be in every plan: a process of
its own finds it on the path, with the metadata that pip would write. `.ci/run` installs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import autmarg
from autmarg.gaussian.stages import Stage
from autmarg.passes import registry

PLUGIN = Path(__file__).parents[1] / "plugin"


def metadata(folder: Path) -> None:
    """Write what pip would for the plugin's entry points."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = folder / "autmarg_example-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: autmarg-example\nVersion: 0.1.0\n")
    groups = project["entry-points"].items()
    lines = [line for g, points in groups for line in (f"[{g}]", *map(" = ".join, points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.mark.slow  # .ci/run does the same with the installed wheel
def test_the_plugin_works(tmp_path):
    metadata(tmp_path)
    paths = [str(tmp_path), str(PLUGIN), str(PLUGIN.parent.parent)]
    done = subprocess.run(
        [sys.executable, str(PLUGIN / "check.py")],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()[:2]
    assert (before, after) == ("{'no plate': 3, 'groups': 3}", "{'no plate': 2}")
    assert "verify: exact; integrated out: mu, u, variance" in done.stdout


def test_a_plugin_that_fails_is_named(monkeypatch):
    point = EntryPoint("bad", "nowhere_at_all:register", registry.PLUGINS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(autmarg.RequestError, match=r"plugin .bad. .nowhere_at_all:register. of"):
        registry.load_plugins.__wrapped__()
    with pytest.raises(autmarg.RequestError, match="there is no pass"):
        registry.named("polish")


def test_a_stage_has_next_and_a_cost():
    class Free(Stage):
        next = classmethod(lambda cls, pattern, members: None)

    with pytest.raises(autmarg.RequestError, match="no class method next"):
        autmarg.register_stage(int)
    with pytest.raises(autmarg.RequestError, match="does not say what it costs"):
        autmarg.register_stage(Free)


def test_a_term_takes_rows():
    with pytest.raises(autmarg.RequestError, match="no class method take"):
        autmarg.register_term(int)
