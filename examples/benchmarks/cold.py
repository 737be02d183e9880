"""Seconds from the start of a cold process to its first draws."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CHILD = "one-cold"


def cold(
    name: str,
    methods: Sequence[str],
    cores: int,
    repeats: int,
    warmup: int,
    draws: int,
    dense_mass: bool,
):
    """One row for each method and repeat: wall seconds of a process of its own, methods in turn.

    ``sample-warm`` finds what ``sample`` left in the compilation cache.
    """
    rows = []
    kept = tempfile.mkdtemp()
    for k in range(repeats):
        for method in methods:
            words = ["--sets", name, "--methods", method, "--cores", str(cores)]
            words += ["--warmup", str(warmup), "--draws", str(draws)]
            words += ["--dense-mass"] if dense_mass else []
            command = [sys.executable, "-m", "examples.benchmarks", _CHILD, *words]
            environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
            environment["AUTMARG_CACHE"] = kept if method == "sample-warm" else ""
            if method == "sample-warm" and k == 0:  # once before, for what it leaves
                subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            started = time.perf_counter()
            done = subprocess.run(
                command, check=True, env=environment, stdout=subprocess.PIPE, text=True
            )
            wall = time.perf_counter() - started
            said = json.loads(done.stdout.strip().splitlines()[-1])
            rows.append({"set": name, "method": method, "wall_s": wall, **said})
    return rows


def one_cold(name: str, method_name: str, warmup: int, draws: int, dense_mass: bool) -> None:
    """What runs in the cold process: as a user would, with NumPyro's own MCMC or marg.sample."""
    entered = time.perf_counter()
    import jax
    from numpyro.infer import MCMC, NUTS

    from examples.benchmarks.methods import method
    from examples.benchmarks.sets import load_set

    data = load_set(name)
    imported = time.perf_counter()
    if method_name.startswith("sample"):
        _say(_one_sample(data, draws), imported - entered)
        return
    each = method(data, method_name)
    assert each is not None
    planned = time.perf_counter()
    kernel = each.marg.nuts() if dense_mass and each.marg else NUTS(each.model)
    mcmc = MCMC(kernel, num_warmup=warmup, num_samples=draws, progress_bar=False)
    mcmc.run(jax.random.key(0), *data.args)
    draws_of_sites = jax.block_until_ready(mcmc.get_samples())
    drawn = time.perf_counter()
    jax.block_until_ready(each.recover(jax.random.key(1), draws_of_sites))
    recovered = time.perf_counter()
    seconds = {
        "plan_s": planned - imported,
        "run_s": drawn - planned,
        "recover_s": recovered - drawn,
    }
    _say(seconds, imported - entered)


def _one_sample(data: Any, draws: int) -> dict[str, float]:
    """The same by ``marg.sample``, in four chains."""
    import jax

    import autmarg

    started = time.perf_counter()
    marg = autmarg.transform(data.source)
    posterior = marg.sample(jax.random.key(0), *data.args, num_samples=draws // 4)
    drawn = time.perf_counter()
    jax.block_until_ready(marg.recover(jax.random.key(1), posterior))
    plan = posterior.quality.seconds["plan"]
    recovered = time.perf_counter()
    return {
        "plan_s": plan, "run_s": drawn - started - plan, "recover_s": recovered - drawn
    }  # fmt: skip


def _say(seconds: dict[str, float], imported: float) -> None:
    print(json.dumps({"import_s": imported, **seconds, "peak_mbytes": _peak() / 1024}))


def _peak() -> float:
    """Peak resident kilobytes; on Linux ``ru_maxrss`` would have those of the parent in it."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return float(lines["VmHWM"].split()[0])
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
