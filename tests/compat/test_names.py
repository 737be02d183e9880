"""Names of programs: equal for equal programs of any process, and for no others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

from autmarg.backend.batches import at_each
from autmarg.compat import executables, names
from autmarg.compat.double import in_double
from autmarg.compat.names import name_of


@jax.custom_jvp
def soft(x):
    return jnp.logaddexp(x, 0.0)


soft.defjvp(lambda x, t: (soft(*x), jax.nn.sigmoid(x[0]) * t[0]))


def program(data: Any = (0.5, 1.5, 2.5), rows: Any = (0, 2, 1), power: float = 2.0) -> Any:
    """A program with known numbers and indices, random keys, a loop, a branch and a custom rule."""

    def function(key: Any, x: Any) -> Any:
        noise = jax.random.normal(jax.random.fold_in(key, 1), (3,))
        y = jnp.asarray(data)[np.array(rows)] * x**power + noise
        last, _ = jax.lax.scan(lambda c, e: (soft(c + e), None), 0.0, y)
        return jax.lax.cond(last > 0, jnp.sin, jnp.cos, last) + jnp.linalg.cholesky(jnp.eye(2))

    return jax.make_jaxpr(function)(jax.random.key(0), jnp.ones(()))


def test_processes_agree(tmp_path):
    """Also where their hashes of strings differ; the second one runs what the first one left."""
    code = f"import runpy; runpy.run_path({__file__!r})['say']()"
    said = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "AUTMARG_CACHE": str(tmp_path)},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert said[0] == said[1]
    assert "None" not in said[0]
    assert "[3. 3.]" in said[0]
    assert len(list(tmp_path.iterdir())) == 1


def say() -> None:
    """Print names, and two roots of nine by LAPACK, which no other program has set up."""
    executables.enable_cache()
    matrices = np.full((1, 2, 1, 1), 9.0, np.float32)
    roots = at_each(lambda _, v, __: jnp.linalg.cholesky(v)[0, 0])(np.zeros((1, 2)), matrices, {})
    print(name_of(program()), name_of(_double()), roots)


def _double() -> Any:
    """A program that is worked out in double precision."""
    with jax.enable_x64(False):
        return jax.make_jaxpr(in_double(lambda x: jnp.sum(jnp.asarray([1.0, 2.0]) * x)))(1.0)


def test_only_the_values_of_numbers_make_no_difference():
    own = name_of(program())
    assert own == name_of(program(data=(1.0, 2.0, 3.0)))
    others = [
        name_of(program(rows=(0, 1, 2))),
        name_of(program(power=3.0)),
        name_of(program(data=(1.0, 2.0, 3.0, 4.0))),
        name_of(program(data=np.ones(3, np.float32))),
        name_of(program(), "another shape"),
        name_of(program(), name_of),
    ]
    with jax.numpy_rank_promotion("warn"):
        others.append(name_of(program()))
    assert None not in others
    assert len({own, *others}) == 1 + len(others)


def test_with_other_files_of_this_package_it_is_another(monkeypatch):
    own = name_of(program())
    monkeypatch.setattr(names, "_files", lambda: "other files")
    assert name_of(program()) not in (own, None)


@jax.custom_batching.custom_vmap
def twice(x):
    return 2 * x


@twice.def_vmap
def _(size, batched, x):
    return 2 * x, True


stranger = Primitive("sin")  # of a name that JAX has, too
stranger.def_abstract_eval(lambda x: x)
NAMELESS: dict[str, Callable[..., Any]] = {
    "callback": lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), x.dtype), x),
    "primitive": lambda x: stranger.bind(x),
    "inside": lambda x: jax.lax.fori_loop(0, 3, lambda k, c: stranger.bind(c), x),
    "own batching": twice,
}


@pytest.mark.parametrize("case", NAMELESS)
def test_what_may_change_under_its_name_has_none(case):
    assert name_of(jax.make_jaxpr(NAMELESS[case])(1.0)) is None


def test_a_function_of_somebody_else_has_none():
    assert name_of(program(), program) is None
    assert name_of(program(), lambda x: x) is None


def test_what_is_found_by_name_is_not_lowered(tmp_path, monkeypatch):
    """Other data run an executable from disk; what has no name is found by its text."""
    monkeypatch.setattr(executables._Disk, "folder", tmp_path)
    monkeypatch.setattr(executables._Disk, "decided", True)
    lowered: list[bool] = []

    def once(lower: Callable[[], Any], *args: Any, **options: Any) -> Any:
        return real(lambda: lowered.append(True) or lower(), *args, **options)

    real = executables.executable
    monkeypatch.setattr("autmarg.compat.programs.executable", once)
    own, values = np.arange(4.0).reshape(2, 2), {"x": np.arange(4.0).reshape(2, 2)}
    for data, count in ((2.0, 1), (3.0, 1)):
        number = jnp.asarray([data])
        found = at_each(lambda k, v, _, n=number: {"y": n[0] * v["x"] + k})(own, values, {})
        np.testing.assert_allclose(found["y"], (data + 1) * np.arange(4.0))
        assert len(lowered) == count
        executables._EXECUTABLES.clear()
    nameless = at_each(lambda k, v, _: {"y": NAMELESS["own batching"](v["x"])})
    np.testing.assert_allclose(nameless(own, values, {})["y"], 2 * np.arange(4.0))
    assert len(lowered) == 2
