"""Do the tests of a room notice a changed line?  A seeded sample of mutants made by cosmic-ray, each run by itself.

    python tests/mutants.py --number 200 --seed 1 [--seconds 3600] [--file simulation/traffic.py]

Mutants are made in a copy of the project under out/mutants, never in the working tree.  Each is given to the quick
tests (not marked slow) of its own room and, but for the report, to those of simulation, where the golden ledger is;
see :data:`ROOMS`.  They run until one fails; a mutant that runs longer than :data:`TIMEOUT_S` counts as noticed.
Exit code 1 when fewer than nine of ten are noticed.  The survivors are printed as differences.

It is made quick in three ways:

- The tests are collected once.  A mutant is a fork of that process in which the code of the changed function is
  exchanged.  Where that is not enough (a constant of a module, code that ran while the tests were collected, a compiled
  loop), the tests run in a process of their own.
- It is recorded once which test executes which line, each file of tests by itself, so that nothing is remembered from
  another.  A mutant is given to the files of tests that execute its statement, and in them first to the tests that do.
  What is kept is under out/mutants-kept; a changed test is recorded anew, and of a source file that changed since then
  every line counts as executed.
- Tests that are short, and that noticed most so far, come first.

Each mutant gets at most :data:`MOST_S` seconds of tests; of a file only the tests of its first
:data:`MOST_OF_A_FILE_S` seconds are asked, and long tests of engines and of other tools' files not at all.  So the
share that is told is a lower bound.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType
from typing import TypeVar

import pytest
from coverage import Coverage

from mutant_texts import (
    CHANGED,
    ROOT,
    Exchange,
    Mutant,
    changed_lines,
    does_nothing,
    exchanged,
    files,
    mutants,
    put_in_place,
    statement,
    why_equivalent,
)

T = TypeVar("T")
Executed = dict[str, tuple[str, set[int]]]  # file of the source: the digest of its text, the lines
# Seconds and lines by test, tests that fail without a change, tests that are left out
Recorded = tuple[dict[str, float], dict[str, Executed], list[str], list[str]]
COPY = ROOT / "out" / "mutants"
KEPT = ROOT / "out" / "mutants-kept"
TIMEOUT_S = 120
MOST_S = 15  # seconds of tests that a mutant is given to; what these do not notice counts as not noticed
MOST_OF_A_FILE_S = 6  # seconds of tests of one file that are recorded; what comes after them is not asked
NOT_FOUND = 9  # exit code of a fork in which the code to exchange is not found
BAR = 0.9
COMPILED = ("load_loop", "CPointer", "njit")  # words in the text of a file of compiled loops
# The tests that a room's files are given to.
ROOMS: dict[str, tuple[str, ...]] = {
    "workload": ("workload", "simulation"),
    "mapping": ("mapping", "simulation"),
    "simulation": ("simulation",),
    "chip": ("chip", "simulation"),
    "report": ("report",),
}
# Tests of another room that a file is given to as well.
BESIDES = {"simulation/schedule_timeline.py": ("report/test_does_perfetto_drop_nothing.py",)}
# Files of tests that take long or are about something else: engines, other tools' files, published figures.
NOT_ASKED = (
    "chip/test_descriptions.py",
    "chip/test_do_scalesim3_layouts_and_latencies_agree.py",
    "chip/test_every_key_acts.py",
    "chip/test_gpu_calibration.py",
    "chip/test_gpu_models.py",
    "chip/test_link_sets.py",
    "chip/test_more_is_never_slower.py",
    "chip/test_systolic_folds.py",
    "chip/test_systolic_scalesim.py",
    "chip/test_tiles_of_kinds.py",
    "chip/test_varied_chips.py",
    "report/test_keys.py",
    "report/test_is_a_result_easy_to_take_along.py",
    "simulation/laws",
    "simulation/test_cycle_fidelity.py",
    "simulation/test_do_models_agree.py",
    "simulation/test_is_training_as_fast_as_published.py",
    "simulation/test_jobs.py",
    "workload/test_are_names_of_hugging_face_understood.py",
    "workload/test_do_matmul_flops_match_pytorch.py",
    "workload/test_do_parameters_match_hugging_face.py",
    "workload/test_does_no_name_decide.py",
    "workload/test_does_the_ledger_pass.py",
    "workload/test_does_tracing_give_the_same_graph.py",
)


class Tests:
    """Tests of the copy, collected in this process, and what they execute."""

    def __init__(self, folders: Iterable[str]) -> None:
        self.folders = [f"tests/{folder}" for folder in folders]
        self.early: dict[str, set[int]] = {}  # lines of each file that ran while the tests were collected
        self.items: dict[str, pytest.Item] = {}
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, Executed] = {}  # by test
        self.noticed: Counter[str] = Counter()

    def run(self, what: Callable[[Tests], None]) -> None:
        """Collect the tests, and do `what` with them."""
        self.what = what
        self.collecting = _measured()
        self.collecting.start()
        left_out = [f"--ignore=tests/{name}" for name in NOT_ASKED]
        pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", *left_out, *self.folders], plugins=[self])

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of running the tests: what was asked."""
        self.collecting.stop()
        data = self.collecting.get_data()
        self.early = {file: set(data.lines(file) or ()) for file in data.measured_files()}
        if session.testsfailed:
            raise SystemExit("the tests cannot be collected")
        self.session = session
        self.items = {item.nodeid: item for item in session.items}
        self._record()
        self.what(self)
        return True

    def _record(self) -> None:
        """Which test executes which lines, and how long it takes; the files of tests one by one, each in a fork."""
        helpers = (path for folder in self.folders for path in _under(folder) if not path.name.startswith("test_"))
        base = _digest(b"".join(path.read_bytes() for path in helpers))
        for file, names in itertools.groupby(list(self.items), key=_file):
            tests = list(names)
            seconds, lines, failed, left = kept(
                f"{MOST_OF_A_FILE_S} s" + base + file + (COPY / file).read_text() + " ".join(tests),
                lambda tests=tests: self._recorded(tests),
            )
            self.seconds |= seconds
            self.lines |= lines
            for name in left:
                self.items.pop(name)
            for name in failed:
                print(f"fails without a change, left out: {name}", flush=True)
                self.items.pop(name)

    def _recorded(self, names: list[str]) -> Recorded:
        place = KEPT / f"recorded-{os.getpid()}"

        def child() -> int:
            measured = _measured()
            seconds: dict[str, float] = {}
            failed: list[str] = []
            left: list[str] = []
            self.session.config.pluginmanager.unregister(name="terminalreporter")
            measured.start()
            whole = time.process_time()
            for name, following in itertools.pairwise([*names, None]):
                if time.process_time() - whole > MOST_OF_A_FILE_S:
                    left.append(name)
                    continue
                measured.switch_context(name)
                began, before = time.process_time(), self.session.testsfailed
                self._one(name, following)
                seconds[name] = time.process_time() - began
                failed += [name] if self.session.testsfailed > before else []
            measured.stop()
            lines: dict[str, Executed] = {name: {} for name in names}
            data = measured.get_data()
            for file in data.measured_files():
                path, digest = Path(file).relative_to(COPY).as_posix(), _digest(Path(file).read_bytes())
                for line, contexts in data.contexts_by_lineno(file).items():
                    for name in set(contexts) & set(names):
                        lines[name].setdefault(path, (digest, set()))[1].add(line)
            place.write_bytes(pickle.dumps((seconds, lines, failed, left)))
            return 0

        if in_fork(child, 1800) != 0:
            raise SystemExit(f"the tests cannot be recorded: {_file(names[0])}")
        found: Recorded = pickle.loads(place.read_bytes())
        print(f"recorded {_file(names[0])}: {sum(found[0].values()):.0f} s", file=sys.stderr, flush=True)
        return found

    def _one(self, name: str, following: str | None) -> None:
        item, then = self.items[name], self.items[following] if following else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)

    def chosen(self, path: str, before: str, after: str) -> list[str]:
        """The tests for a mutant: of the files that execute its statement, or its function, the quickest first.

        All tests where none does: a constant of a module, or code that ran while the tests were collected.
        """
        name = path.removeprefix("src/tierform/")
        rooms = tuple(f"tests/{room}" for room in (*ROOMS[name.split("/")[0]], *BESIDES.get(name, ())))
        names = [name for name in self.items if name.startswith(rooms)]
        executing: list[str] = []
        digest = _digest(before.encode())
        for lines in statement(before, after):
            executing = [name for name in names if self._executes(name, path, digest, lines)]
            if executing:
                break
        of_files = set(map(_file, executing))
        first = set(executing)
        ordered = sorted(
            (name for name in names if not of_files or _file(name) in of_files),
            key=lambda name: (name not in first, (0.05 + self.seconds[name]) / (1 + self.noticed[name])),
        )
        taken = itertools.accumulate(self.seconds[name] for name in ordered)
        return [name for name, seconds in zip(ordered, taken, strict=True) if seconds <= MOST_S]

    def _executes(self, name: str, path: str, digest: str, lines: range) -> bool:
        """Whether a test executes one of the lines; of a file that changed since it was recorded any line."""
        if path not in self.lines[name]:
            return False
        then, executed = self.lines[name][path]
        return then != digest or not executed.isdisjoint(lines)

    def notice(self, mutant: Mutant, before: str, after: str) -> bool:
        """Whether a test fails, or the tests run too long, with the mutant in place."""
        exchange = exchanged(str(COPY / mutant.path), before, after)
        compiled = any(word in before for word in COMPILED)
        alone = exchange is None or compiled or any(self._ran_early(old) for old, _ in exchange)
        names = self.chosen(mutant.path, before, after)
        place = COPY / mutant.path
        _write(place, after)
        try:
            if alone:
                return _fails(names)
            return self._fails_in_fork(names, exchange or [])
        finally:
            _write(place, before)

    def _ran_early(self, code: CodeType) -> bool:
        inside = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
        return not inside.isdisjoint(self.early.get(code.co_filename, ()))

    def _fails_in_fork(self, names: list[str], exchange: list[Exchange]) -> bool:
        reading, writing = os.pipe()

        def child() -> int:
            self.session.config.pluginmanager.unregister(name="terminalreporter")
            if not put_in_place(exchange):
                return NOT_FOUND
            for name, following in itertools.pairwise([*names, None]):
                self._one(name, following)
                if self.session.testsfailed:
                    os.write(writing, name.encode())
                    return 1
            return 0

        code = in_fork(child, TIMEOUT_S)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            if name := pipe.read():
                self.noticed[name] += 1
        return _fails(names) if os.WIFEXITED(code) and os.WEXITSTATUS(code) == NOT_FOUND else code != 0


def _measured() -> Coverage:
    """What records the lines of the files that are changed."""
    places = [f"{COPY}/src/tierform/{name}{'' if name.endswith('.py') else '/*'}" for name in CHANGED]
    return Coverage(data_file=None, include=places, config_file=False)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file(name: str) -> str:
    return name.split("::")[0]


def _under(folder: str) -> list[Path]:
    return sorted(path for path in (COPY / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def in_fork(what: Callable[[], int], seconds: int) -> int:
    """The exit code of `what` in a fork of this process that is ended after so many seconds, without its output."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        try:
            code = what()
        except BaseException:
            code = 3
        os._exit(code)
    return os.waitpid(child, 0)[1]


def _fails(names: list[str]) -> bool:
    """Whether one of the tests fails in a process of its own; the first ten before the others."""
    for part in (names[:10], names[10:]):
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *part]
        try:
            if part and subprocess.run(command, cwd=COPY, capture_output=True, timeout=3 * TIMEOUT_S).returncode:
                return True
        except subprocess.TimeoutExpired:
            return True
    return False


_moments = itertools.count(1_000_000_000)


def _write(place: Path, text: str) -> None:
    """Write a source file with a time of its own, by which Python tells it from the one that it compiled before."""
    place.write_text(text)
    moment = next(_moments)
    os.utime(place, (moment, moment))


def kept(key: str, make: Callable[[], T]) -> T:
    """What `make` gives, kept under out/mutants-kept."""
    place = KEPT / hashlib.sha256(key.encode()).hexdigest()
    if not place.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        place.write_bytes(pickle.dumps(make()))
    found: T = pickle.loads(place.read_bytes())
    return found


def main() -> int:
    """Draw, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="mutants in the sample")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample")
    parser.add_argument("--seconds", type=float, default=4 * 3600.0, help="start no mutant after so many seconds")
    parser.add_argument("--file", default="", help="only files whose path holds this text")
    given = parser.parse_args()
    shutil.rmtree(COPY, ignore_errors=True)
    for part in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / part, COPY / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", COPY)
    os.chdir(COPY)
    os.environ |= {
        "PYTHONPATH": str(COPY / "src"),
        "PYTHONPYCACHEPREFIX": str(KEPT / "bytecode"),
        "NUMBA_CACHE_DIR": str(KEPT / "compiled"),
    }
    sys.path.insert(0, str(COPY / "src"))
    sys.pycache_prefix = str(KEPT / "bytecode")
    paths = [path for path in files() if given.file in path]
    every = [mutant for path in paths for mutant in kept(path + (ROOT / path).read_text(), lambda p=path: mutants(p))]
    random.Random(given.seed).shuffle(every)
    counted = {"run": 0, "survivors": 0}

    def sample(tests: Tests) -> None:
        began = time.monotonic()
        for mutant in every:
            if counted["run"] == given.number or time.monotonic() - began > given.seconds:
                break
            before = (COPY / mutant.path).read_text()
            after = mutant.made_in(before)
            if does_nothing(before, after):
                continue
            if why := why_equivalent(before, after):
                print(f"equivalent, not counted: {mutant.path}: {why}\n{changed_lines(before, after)}", flush=True)
                continue
            counted["run"] += 1
            started = time.monotonic()
            noticed = tests.notice(mutant, before, after)
            print(f"{counted['run']} {noticed} {time.monotonic() - started:.0f} s {mutant.path}", file=sys.stderr)
            if not noticed:
                counted["survivors"] += 1
                print(f"survives: {mutant.path}\n{changed_lines(before, after)}", flush=True)

    Tests(sorted({room for path in paths for room in ROOMS[path.split("/")[2]]})).run(sample)
    share = 1 - counted["survivors"] / counted["run"] if counted["run"] else 0.0
    noticed = counted["run"] - counted["survivors"]
    print(f"seed {given.seed}: {counted['run']} of {len(every)} mutants run, {noticed} noticed: {share:.1%}")
    return 0 if share >= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
