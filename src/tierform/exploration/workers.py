"""More processes on one study: each opens its file and works until there is nothing more to do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, Popen

from tierform.exploration.draining import draining, never


def run_processes(study: Path, number: int, own: Callable[[], None], stop: Callable[[], bool] = never) -> None:
    """Run `number` processes beside `own`.

    Where it ends early, or `stop` says so, they finish the points at work and end; what a dead one had leased waits.
    """
    processes = [start(study) for _ in range(number)]
    try:
        own()
        for process in processes if not stop() else ():
            process.wait()
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()


def start(study: Path) -> Popen[bytes]:
    """One process that works on a study."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return Popen([sys.executable, "-m", "tierform.exploration.workers", str(study)], env=environment, stdin=DEVNULL)


def main(path: str) -> None:
    """Work on the study of this file."""
    from tierform.exploration.study import open_study

    with draining() as stop:
        open_study(path).work(stop=stop)


if __name__ == "__main__":
    main(sys.argv[1])
