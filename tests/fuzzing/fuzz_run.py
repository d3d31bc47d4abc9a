"""Feed mutated inputs to parsers and note what must not happen: a traceback, a hang, memory, nonsense accepted.

``python tests/fuzzing/fuzz_run.py [TARGET ...] --runs 1000 --seed 1`` mutates with a seed; ``--seconds 60`` is bounded
in time; ``--guided`` lets libFuzzer (through atheris, on Linux) choose the inputs by the code that they reach.  Parsers
run in another process than this one.  An input that breaks a parser is kept in ``--out`` under the target's name.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_mutations import mutated

LONGEST_S, MOST_GROWTH_B = 2.0, 300 * 2**20
# Processor time of a target's right inputs, which compile what they need; elapsed time may be this many times more.
WARM_UP_S, BUSY = 300.0, 10.0


class Watch:
    """One target in this process: runs inputs and keeps those that break it; time is processor time."""

    def __init__(self, name: str, folder: Path, out: Path) -> None:
        from fuzz_targets import TARGETS

        self.name, self.target, self.folder, self.out = name, TARGETS[name], folder, out
        self.seeds = self.target.seeds()
        self.counts = {"inputs": 0, "accepted": 0, "refused": 0}
        self.faults: dict[str, str] = {}
        signal.signal(signal.SIGPROF, _too_long)
        self.limit_s = 0.0
        for seed in self.seeds:  # everything is imported, compiled and warm before time and memory are bounded
            self.one(seed)
        self.limit_s = LONGEST_S
        gc.collect()
        gc.freeze()  # what is loaded stays; collections look at the new things only
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MOST_GROWTH_B, resource.RLIM_INFINITY))

    def one(self, content: bytes) -> None:
        """Run one input."""
        from tierform.errors import TierformError

        path = self.folder / self.target.file
        path.write_bytes(content)
        self.counts["inputs"] += 1
        signal.setitimer(signal.ITIMER_PROF, self.limit_s)
        try:
            found = self.target.read(path)
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.counts["accepted"] += 1
            if (wrong := self.target.nonsense(found)) is not None:
                self._keep(content, f"accepted: {wrong}")
        except TierformError as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.counts["refused"] += 1
            text = str(error)
            if not text.strip() or any(not (one.isprintable() or one in "\n\t") for one in text):
                self._keep(content, f"a message that a terminal would obey: {text!r}")
        except _Hang:
            self._keep(content, f"not done after {LONGEST_S:g} s")
        except BaseException as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            place = [one for one in traceback.extract_tb(error.__traceback__) if "tierform" in one.filename]
            where = f"{Path(place[-1].filename).name}:{place[-1].lineno}" if place else ""
            self._keep(content, f"{type(error).__name__} at {where}: {str(error)[:100]}")

    def _keep(self, content: bytes, what: str) -> None:
        kind = re.sub(r"[-\d.e+]+$", "", what[:60]) if what.startswith("accepted") else what.split(": ")[0]
        if kind in self.faults:
            return
        digest = hashlib.sha256(content).hexdigest()[:8]
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"{self.name}-{digest}").write_bytes(content)
        self.faults[kind] = f"{what}  ({self.name}-{digest})"

    def report(self, done: bool = False) -> None:
        """One line of JSON on standard output."""
        found = {"target": self.name, **self.counts, "faults": list(self.faults.values()), "done": done}
        print(json.dumps(found), flush=True)


class _Hang(BaseException):
    pass


def _too_long(number: int, frame: object) -> None:
    raise _Hang


def _seeded(watch: Watch, runs: int, seconds: float, seed: int) -> None:
    rng = random.Random(f"{watch.name}-{seed}")
    end, told = time.monotonic() + seconds, time.monotonic()
    for _ in range(runs):
        if time.monotonic() > end:
            break
        if time.monotonic() > told + 5:  # so that a run that is cut off has said how far it came
            told = time.monotonic()
            watch.report()
        watch.one(watch.target.repair(mutated(rng.choice(watch.seeds), watch.seeds, rng)))
    watch.report(done=True)


def _guided(name: str, folder: Path, out: Path, seconds: float, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["tierform"]):
        watch = Watch(name, folder, out)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(watch.seeds):
        (corpus / str(number)).write_bytes(content)

    def change(content: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(content, most))
        return mutated(content, watch.seeds, rng)[:most]

    told = [0.0, 0]

    def one(content: bytes) -> None:
        watch.one(watch.target.repair(content))
        if time.monotonic() > told[0] + 1 or len(watch.faults) > told[1]:  # libFuzzer ends without a last word
            told[:] = [time.monotonic(), len(watch.faults)]
            watch.report()

    quiet = ["-verbosity=0", f"-max_total_time={int(seconds)}", f"-seed={seed or 1}", "-max_len=20000", "-timeout=20"]
    atheris.Setup([name, *quiet, "-rss_limit_mb=0", str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()


def _bound(seconds: float) -> None:
    """End this process where the next target takes much more processor time: compiled code hears no signal."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds + WARM_UP_S)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def run(names: list[str], *, runs: int, seconds: float, seed: int, out: Path, guided: bool = False) -> list[dict]:
    """Run targets one after the other in one process; a report each, and a dead process is a fault of its target."""
    # In memory where there is such a folder: a disk takes longer than most parsers.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        words = ["--worker", folder, "--runs", str(runs), "--seconds", str(seconds), "--seed", str(seed)]
        words += ["--out", str(out)] + (["--guided"] if guided else [])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TIERFORM_CACHE": "off", "TMPDIR": folder}
        command, limit_s = [sys.executable, __file__, *names, *words], (seconds + WARM_UP_S) * BUSY * len(names)
        died = ""
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit_s, env=environment, check=False
            )
            text = done.stdout
            if done.returncode:
                died = f"the process ended with {done.returncode}: {done.stderr[-300:]}"
        except subprocess.TimeoutExpired as error:
            text, died = (error.stdout or b"").decode(), "the process did not end"
        reports = last_reports(text)
        # Who is at work when the process dies is the first that has not told its end.
        at_work = next((name for name in names if not reports.get(name, {}).get("done")), names[-1])
        if died:
            out.mkdir(parents=True, exist_ok=True)
            for file in Path(folder).iterdir():
                if file.is_file():
                    (out / f"{at_work}-died-{file.name}").write_bytes(file.read_bytes())
            nothing = {"target": at_work, "inputs": 0, "accepted": 0, "refused": 0, "faults": [], "done": False}
            reports.setdefault(at_work, nothing)["faults"].append(died)
    return list(reports.values())


def last_reports(text: str) -> dict[str, dict]:
    """The last word of each target in what a worker printed."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith('{"target"')]
    return {one["target"]: one for one in lines}


def main() -> int:
    """The command line; exit 1 when anything broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--runs", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--worker", type=Path)
    given = parser.parse_args()
    if given.worker:
        for name in given.targets:
            _bound(given.seconds)
            if given.guided:
                _guided(name, given.worker, given.out, given.seconds, given.seed)
            else:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                _seeded(Watch(name, given.worker, given.out), given.runs, given.seconds, given.seed)
        return 0
    from fuzz_targets import TARGETS

    if unknown := [name for name in given.targets if name not in TARGETS]:
        near = {name: difflib.get_close_matches(name, TARGETS, 3) for name in unknown}
        told = [name + (f" (did you mean {' or '.join(near[name])}?)" if near[name] else "") for name in unknown]
        parser.error(f"no such target: {', '.join(told)}; known: {', '.join(TARGETS)}")
    broken = False
    for name in given.targets or list(TARGETS):
        (found,) = run(
            [name], runs=given.runs, seconds=given.seconds, seed=given.seed, out=given.out, guided=given.guided
        )
        print("{target}: {inputs} inputs, {accepted} accepted, {refused} refused".format(**found), flush=True)
        for fault in found["faults"]:
            broken = True
            print(f"    {fault}", flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
