"""An interrupt that lets what is at work be finished: the first asks for the end, a second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def draining() -> Iterator[Callable[[], bool]]:
    """Whether the end was asked for, by Ctrl-C or by SIGTERM; outside the main thread nobody can ask."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def never() -> bool:
    """Nobody asks for the end."""
    return False


__all__ = ["draining", "never"]
