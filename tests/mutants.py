"""Do the tests of a room notice a changed line?  A seeded sample of mutants made by cosmic-ray, each run by itself.

    python tests/mutants.py --number 200 --seed 1 [--seconds 3600] [--file simulation/traffic.py]

Mutants are made in a copy of the project under out/mutants, never in the working tree.  Each runs the quick tests of
its file (:data:`TESTS`) until one fails; a mutant that runs longer than :data:`TIMEOUT_S` counts as noticed.  Exit
code 1 when fewer than nine of ten are noticed.  The survivors are printed as differences.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPY = ROOT / "out" / "mutants"
TIMEOUT_S = 120
BAR = 0.9
_GOLDEN = "tests/simulation/golden tests/simulation/test_are_the_rules_of_counting_held.py"
_LEDGER = (
    f"{_GOLDEN} tests/simulation/test_parallel.py tests/simulation/test_spill.py tests/simulation/test_main_job.py"
)
_CHIP = "tests/chip/test_golden_costs.py"
# File or folder of the source: its quick tests, those that notice most first.
TESTS = {
    "workload": f"{_GOLDEN} tests/workload/test_is_the_graph_sound.py tests/workload/test_do_memory_laws_hold.py "
    "tests/workload/test_do_the_chips_share_the_work.py tests/workload/test_do_parameters_match_hugging_face.py",
    "mapping": f"tests/mapping {_LEDGER}",
    "simulation/schedule.py": "tests/simulation/test_schedule.py tests/simulation/golden",
    "simulation/pipeline.py": "tests/simulation/golden tests/simulation/test_parallel.py",
    "simulation/power_cap.py": "tests/simulation/test_power.py",
    "simulation/runtime.py": "tests/simulation/test_runtimes.py",
    "simulation/software.py": "tests/simulation/test_runtimes.py tests/simulation/golden",
    "simulation/elasticity.py": "tests/simulation/test_elasticities.py",
    "simulation/limits.py": "tests/simulation/test_limits.py",
    "simulation/schedule_timeline.py": "tests/report/test_does_perfetto_drop_nothing.py",
    "simulation/page_view.py": "tests/simulation/test_does_a_view_show_the_run.py",
    "simulation/page_heat.py": "tests/simulation/test_does_a_view_show_the_run.py",
    "simulation/page_limits.py": "tests/simulation/test_does_a_view_show_the_run.py",
    "simulation/schedule_critical.py": "tests/simulation/test_does_a_view_show_the_run.py",
    "simulation": f"{_LEDGER} tests/simulation/test_multicast.py tests/simulation/laws/test_do_the_parts_add_up.py",
    "report/tables.py": "tests/report tests/simulation/test_are_the_rules_of_counting_held.py",
    "chip/gpu/fusion.py": "tests/chip/test_gpu_fusion.py tests/chip/test_gpu_flash.py",
    "chip/gpu/flash.py": "tests/chip/test_gpu_flash.py tests/chip/test_gpu_fusion.py",
    "chip/gpu/device.py": f"{_GOLDEN} {_CHIP} tests/chip/test_gpu_kernels.py",
    "chip/crossbar/component.py": f"{_CHIP} tests/chip/test_crossbar_tiles.py tests/chip/test_crossbar_wear.py",
    "chip/systolic/component.py": f"{_CHIP} tests/chip/test_systolic_component.py tests/chip/test_refetch.py",
    "chip/vector.py": f"{_CHIP} {_GOLDEN}",
    "chip/pim.py": f"tests/chip/test_pim.py {_CHIP}",
}
LEFT_OUT = ("workload/tracing", "workload/families", "simulation/job_file.py", "simulation/cycle_fidelity.py")
# Operators of cosmic-ray that change what is computed; decorators, names of exceptions and types are left alone.
OPERATORS = (
    "BinaryOperator",
    "ComparisonOperator",
    "NumberReplacer",
    "UnaryOperator",
    "BooleanReplacer",
    "Conditional",
)


def files() -> Iterator[tuple[Path, str]]:
    """Every file that is changed, with its tests; the longest path of :data:`TESTS` that fits decides."""
    source = ROOT / "src" / "tierform"
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        found = [key for key in TESTS if name == key or name.startswith(f"{key}/")]
        if found and not name.startswith(LEFT_OUT):
            yield path.relative_to(ROOT), TESTS[max(found, key=len)]


Mutant = tuple[Path, str, int]  # a file, an operator of cosmic-ray, and at which of the places where it applies


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of a file."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast((ROOT / path).read_text())))
    found: list[Mutant] = []
    for name in sorted(operator_names()):
        if any(wanted in name for wanted in OPERATORS):
            operator = get_operator(name)()
            number = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            found += [(path, name, place) for place in range(number)]
    return found


def changed(mutant: Mutant) -> str:
    """The text of the file with the mutant in it."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    path, name, place = mutant
    text = (ROOT / path).read_text()
    return str(mutate_code(text, get_operator(name)(), place) or text)


class _Plain(ast.NodeTransformer):
    """Takes annotations away: they are not evaluated, and a change in them is none."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def does_nothing(before: str, after: str) -> bool:
    """Whether two texts are the same program."""
    one, other = (ast.dump(_Plain().visit(ast.parse(text))) for text in (before, after))
    return one == other


def changed_lines(before: str, after: str) -> str:
    """What differs, as lines with - and +."""
    import difflib

    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def notices(path: Path, text: str, tests: str) -> bool:
    """Whether a test fails, or the tests run too long, with the changed text in place."""
    place = COPY / path
    kept = place.read_text()
    _write(place, text)
    environment = {**os.environ, "PYTHONPATH": str(COPY / "src"), "PYTHONPYCACHEPREFIX": str(COPY / "bytecode")}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    try:
        done = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return True
    finally:
        _write(place, kept)
    return done.returncode != 0


_moments = itertools.count(1_000_000_000)


def _write(place: Path, text: str) -> None:
    """Write a source file with a time of its own, by which Python tells it from the one that it compiled before."""
    place.write_text(text)
    moment = next(_moments)
    os.utime(place, (moment, moment))


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
    tests = {path: own for path, own in files() if given.file in str(path)}
    chosen = [mutant for path in tests for mutant in mutants(path)]
    sample = random.Random(given.seed).sample(chosen, min(given.number, len(chosen)))
    began, run, survivors = time.monotonic(), 0, []
    for mutant in sample:
        if time.monotonic() - began > given.seconds:
            break
        path, after = mutant[0], changed(mutant)
        before = (ROOT / path).read_text()
        if does_nothing(before, after):
            continue
        run += 1
        if notices(path, after, tests[path]):
            continue
        survivors.append(mutant)
        print(f"survives: {path}\n{changed_lines(before, after)}", flush=True)
    share = 1 - len(survivors) / run if run else 0.0
    print(f"{run} of {len(chosen)} mutants run, {run - len(survivors)} noticed: {share:.1%}")
    return 0 if share >= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
