"""A line on stderr where work takes long enough for its user to wonder."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

SECONDS = 5.0  # after which a line says what is being done


@contextmanager
def working(what: str, after: float = SECONDS) -> Generator[None, None, None]:
    """Say what is being done once it has taken ``after`` seconds, and how long it took at the end.

    Args:
        what: as in "planning 'model'".
    """
    started, said = time.monotonic(), threading.Event()

    def say() -> None:
        said.set()
        print(f"autmarg: {what} …", file=sys.stderr, flush=True)

    timer = threading.Timer(after, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if said.is_set():
            took = time.monotonic() - started
            print(f"autmarg: {what} took {took:.0f} s", file=sys.stderr, flush=True)
