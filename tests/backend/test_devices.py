"""Eight devices of one host: data spread over a mesh, and chains side by side.

The number of devices is chosen when JAX starts, so all runs in a process of its own.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEVICES = 8


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What ``devices.py`` found, a line each: name, then words; once for all workers."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if run else base) / f"devices-{run}.txt"
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = file.read()
        if not found:
            found = _found()
            file.write(found)
    return dict(line.split(": ", 1) for line in found.split("\n") if line)


def _found() -> str:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "1"}
    command = [sys.executable, str(ROOT / "tests" / "backend" / "devices.py")]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("model", ["homogeneous", "heteroscedastic", "distributional"])
def test_data_on_a_mesh_give_the_same_numbers(report, model):
    assert report["devices"] == str(DEVICES)
    assert float(report[f"{model} error"]) < 1e-10


def test_rows_that_are_added_up_need_no_communication(report):
    assert report["homogeneous communication"] == ""


@pytest.mark.parametrize("model", ["heteroscedastic", "distributional"])
def test_noise_of_each_row_needs_one_sum_over_devices_forwards_and_one_backwards(report, model):
    assert report[f"{model} communication"] == "all-reduce all-reduce"


def test_recovery_from_data_on_a_mesh(report):
    assert float(report["moments error"]) < 1e-8
    assert float(report["draws error"]) < 1e-8


def test_parallel_chains_are_the_sequential_ones(report):
    assert report["chains on devices"] == "4"
    assert float(report["chains error"]) < 1e-6
