"""Executables on disk: found by a later process's program of the same text, never fatal."""

from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np
import pytest

import autmarg
from autmarg.compat import executables
from autmarg.compat.programs import compiled


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(executables._Disk, "folder", None)
    monkeypatch.setattr(executables._Disk, "decided", False)
    executables.enable_cache(tmp_path / "cache")
    return tmp_path / "cache"


def forget() -> None:
    """As a new process would have it."""
    executables._EXECUTABLES.clear()


def total(data: np.ndarray, x: float) -> float:
    """Of a function that closes over data."""
    return float(compiled(lambda x: jnp.sum(jnp.asarray(data) * x))(jnp.asarray(x)))


def test_other_data_of_the_same_structure_find_it(folder):
    assert total(np.arange(3.0), 2.0) == 6.0
    (file,) = folder.glob("*.executable")
    forget()
    os.utime(file, (0, 0))
    assert total(np.ones(3), 2.0) == 6.0
    assert [file] == list(folder.glob("*.executable"))
    assert file.stat().st_mtime > 0  # read, and so the last to go


def test_what_was_compiled_with_other_flags_is_not_found(folder, monkeypatch):
    assert total(np.arange(7.0), 1.0) == 21.0
    forget()
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    executables._machine.cache_clear()
    assert total(np.arange(7.0), 1.0) == 21.0
    executables._machine.cache_clear()
    assert len(list(folder.glob("*.executable"))) == 2


def test_a_spoilt_file_is_no_error(folder):
    assert total(np.arange(4.0), 1.0) == 6.0
    (file,) = folder.glob("*.executable")
    file.write_bytes(b"spoilt")
    forget()
    with pytest.warns(UserWarning, match="cannot read the compiled program"):
        assert total(np.arange(4.0), 1.0) == 6.0


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, folder):
    (tmp_path / "file").write_text("")
    executables.enable_cache(tmp_path / "file" / "below")
    with pytest.warns(UserWarning, match="cannot write the compiled program"):
        assert total(np.arange(5.0), 1.0) == 10.0


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(autmarg.RequestError, match="expected a folder"):
        autmarg.enable_cache(tmp_path / "file")


def test_the_oldest_go_first(folder, monkeypatch):
    monkeypatch.setattr(executables, "_MOST", 1)
    total(np.arange(6.0), 1.0)
    assert list(folder.glob("*.executable")) == []


def test_the_environment_decides(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("AUTMARG_CACHE", "")
    assert executables.enable_cache() is None
    monkeypatch.setenv("AUTMARG_CACHE", str(tmp_path))
    assert executables.enable_cache() == tmp_path
    monkeypatch.delenv("AUTMARG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert executables.enable_cache() == tmp_path / "autmarg"
