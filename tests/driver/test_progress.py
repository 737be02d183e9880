"""What takes long says so on stderr, and nothing else does."""

from __future__ import annotations

import time

from autmarg.progress import working


def test_a_line_when_it_takes_long_and_one_at_the_end(capsys) -> None:
    with working("planning 'model'", after=0.01):
        time.sleep(0.2)
    assert capsys.readouterr().err.splitlines() == [
        "autmarg: planning 'model' …",
        "autmarg: planning 'model' took 0 s",
    ]


def test_silence_where_it_is_quick(capsys) -> None:
    with working("planning 'model'", after=60.0):
        pass
    assert capsys.readouterr().err == ""
