"""Do the pages work in a browser: every kind of run, keyboard, address, no WebGL, phone, axe, budgets, what-if?

Needs Node.js, Chromium (Debian's package `chromium`) and `make studio-tools`; skipped with a note where one is missing.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tierform
from tierform import Result
from tierform.exploration.study import Study, explore
from tierform.report.service_view import load_content, load_point, service_content
from tierform.serving.controls import Failure
from tierform.serving.engine import Engine
from tierform.serving.fleet import Fleet
from tierform.serving.oracle import FormulaOracle
from tierform.serving.requests import Requests
from tierform.serving.serve import serve
from tierform.serving.service import Service
from tierform.serving.slo import Slo
from tierform.studio import export
from tierform.studio.content import Opened, open_paths, opened_results, pages, service_runs
from tierform.studio.explored import study_run

ROOT = Path(__file__).parents[2]
WEB = ROOT / "studio"
NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOOLS = (WEB / "node_modules" / "playwright-core").is_dir() and (WEB / "node_modules" / "axe-core").is_dir()
TUNE = tierform.FineTuning(tierform.LoRA(8), batch=4, sequence=128)
ASK = tierform.Inference(batch=2, sequence=128, decode=16)
HOSTILE = "</script><img src=x onerror=window.hacked=1>'\"`${window.hacked=2}"

needs_browser = pytest.mark.skipif(not (NODE and CHROMIUM and TOOLS), reason="needs node, chromium and studio-tools")
needs_build = pytest.mark.skipif(
    not (NODE and (WEB / "node_modules" / "vite").is_dir()), reason="needs node, studio-tools"
)


def run(chip: Any, task: Any = TUNE, model: str = "bert-base", **options: Any) -> Result:
    return tierform.simulate(model, task, chip, timeline=True, **options)


def grown(grid: int) -> Any:
    """Atleus with more and smaller tiles a die."""
    names = ("systolic", "reram-1", "reram-2", "reram-3")
    changes = {f"package.dies.{name}.grid": [grid, grid] for name in names}
    changes |= {f"package.dies.{name}.holds.reram": 1 for name in names[1:]}
    return tierform.load_chip("atleus").vary(changes)


def kinds(folder: Path) -> dict[str, str]:
    """A page of each kind of run; their addresses by kind."""
    hot = tierform.load_chip("atleus").vary({"cooling.ambient": "75 °C"})
    made = {
        "3d": [run("atleus")],
        "2.5d": [run("atleus-2.5d")],
        "planar": [run("retransformer")],
        "gpu": [run("h100", ASK, "gpt2")],
        "cold": [run("atleus", thermal="none")],
        "transient": [run("atleus", thermal="transient")],
        "hot": [run(hot)],
        "pipeline": [run("a100", ASK, "gpt2", parallelism=tierform.Parallelism(pipeline=2))],
        "several": [run("atleus"), run("atleus-2.5d"), run("a100")],
        "256": [run(grown(8))],
        "1024": [run(grown(16))],
    }
    found = {}
    for kind, results in made.items():
        file = folder / f"{kind}.html"
        export.write(file, results)
        found[kind] = file.as_uri()
    content = pages(opened_results(made["3d"]), exported=True)
    named = json.loads(
        json.dumps(content).replace('"bert-base"', json.dumps(HOSTILE)).replace('"reram-1"', json.dumps(HOSTILE))
    )
    (folder / "hostile.html").write_text(export.page_of(named))
    content["runs"][0]["result"]["view"] = None
    (folder / "old.html").write_text(export.page_of(content))
    return found | {name: (folder / f"{name}.html").as_uri() for name in ("hostile", "old")} | others(folder)


SPACE = """schema: tierform.space/1
name: toy
job: {model: bert-base, chip: atleus, task: {kind: inference, batch: 2, sequence: 64}, thermal: steady}
parameters:
  width: {path: chip.network.width, values: [32 bit, 64 bit, 128 bit]}
  clock: {path: chip.network.clock, from: 0.5 GHz, to: 2 GHz}
objectives: [latency_s, peak_K]
limits: {peak_K: LIMIT}
"""


def explored(folder: Path, name: str, limit: float, budget: int) -> Study:
    space = folder / f"{name}.yaml"
    space.write_text(SPACE.replace("LIMIT", str(limit)).replace("name: toy", f"name: {name}"))
    return explore(space, study=folder / f"{name}.db", budget=budget, strategy="sobol")


def served(gap_ms: int, number: int = 150, **options: Any) -> Service:
    """A serving run by a formula: a step takes 10 ms and 0.1 ms a token."""
    oracle = FormulaOracle(10_000_000, 100_000, components=("chip",), joules=((2.0, 1e-3, 0.0, 0.0),))
    engine = Engine(num_gpu_blocks=400, max_num_seqs=4, max_model_len=1024)
    arrival = np.arange(number, dtype=np.int64) * gap_ms * 1_000_000
    requests = Requests(arrival, np.full(number, 16), np.full(number, 8))
    model = tierform.load_model("gpt2")
    return serve(model, "h100", requests, engine=engine, oracle=oracle, record=True, runtime="ideal", **options)


def others(folder: Path) -> dict[str, str]:
    """Serving runs and studies: calm, overloaded, searched, without a view, nothing found; feasible or not."""
    slo = Slo(ttft=0.5, tpot=0.05)
    runs = {gap: served(gap, slo=slo) for gap in (100, 30, 20, 5)}
    points = [load_point(one, 100 / gap, 1000 / gap) for gap, one in runs.items()]
    best = {"factor": 100 / 30, "offered_per_s": 1000 / 30, "within": 1.0, "goodput_per_s": 30.0}
    plain = served(100).to_dict()
    contents: dict[str, list[Any]] = {
        "serving": [service_content(runs[100])],
        "serving-crowded": [service_content(runs[5])],
        "serving-search": [load_content(runs[30], best, 0.99, points)],
        "serving-nothing": [load_content(None, None, 0.99, points[3:])],
        "serving-old": [plain],
        "serving-fleet": [service_content(served(30, replicas=2, fleet=Fleet(failures=(Failure(1, 1.0, 1.0),))))],
        "serving-several": [service_content(runs[100]), service_content(runs[5])],
        "serving-hostile": [json.loads(json.dumps(service_content(runs[100])).replace('"gpt2"', json.dumps(HOSTILE)))],
    }
    found = {}
    for name, given in contents.items():
        made = [one for k, content in enumerate(given) for one in service_runs(content, k)]
        export.write_opened(folder / f"{name}.html", Opened(services=tuple(made)))
        found[name] = (folder / f"{name}.html").as_uri()
    for name, limit in (("exploration", 400.0), ("exploration-nothing", 200.0)):
        study = study_run(explored(folder, name, limit, 24), 0, designs=True)
        export.write_opened(folder / f"{name}.html", Opened(studies=(study,)))
        found[name] = (folder / f"{name}.html").as_uri()
    return found


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("served")
    for name in ("empty", "broken", "runs"):
        (folder / name).mkdir()
    (folder / "broken" / "broken.json").write_text('{"schema": "tierform.result/1", "model": 3}')
    large = tierform.FineTuning(tierform.LoRA(32), batch=8, sequence=512)
    tierform.simulate("bert-large", large, "atleus").save(folder / "runs" / "run.json")
    explored(folder / "runs", "toy", 400.0, 16)
    started, found = [], {}
    for name in ("empty", "broken", "runs"):
        command = [sys.executable, "-m", "tierform", "studio", str(folder / name), "--no-browser"]
        one = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(one)
        assert one.stdout is not None
        found[name] = one.stdout.readline().split()[-1]
    found["run"] = str(folder / "runs" / "run.json")
    yield found
    for one in started:
        one.terminate()
        one.wait(10)


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory, servers: dict[str, str]) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pages")
    config = folder / "config.json"
    config.write_text(json.dumps({"chromium": CHROMIUM, "files": kinds(folder), "servers": servers}))
    told = subprocess.run(
        [str(NODE), str(WEB / "tests" / "browser.mjs"), str(config)], capture_output=True, text=True, timeout=1800
    )
    found = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert found, told.stderr
    return {one["check"]: one for one in found}


@needs_browser
@pytest.mark.slow
def test_do_all_pages_hold_in_the_browser(checks: dict[str, dict[str, Any]]) -> None:
    for one in checks.values():
        print({key: value for key, value in one.items() if value})
    assert {name: one["error"] for name, one in checks.items() if one["error"]} == {}
    assert len(checks) == 13 + 10 + 1 + 5 + 19


@needs_build
def test_is_the_committed_build_that_of_the_source(tmp_path: Path) -> None:
    subprocess.run([str(NODE), str(WEB / "build.mjs"), str(tmp_path)], check=True, capture_output=True, cwd=WEB)
    committed = ROOT / "src" / "tierform" / "studio" / "static"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in committed.iterdir())
    differ = [file.name for file in tmp_path.iterdir() if file.read_bytes() != (committed / file.name).read_bytes()]
    assert differ == [], "run `make studio` and commit what it writes"


@needs_build
def test_do_types_and_unit_tests_of_the_pages_hold() -> None:
    for command in (["npx", "--no-install", "tsc", "--noEmit"], ["npx", "--no-install", "vitest", "run"]):
        told = subprocess.run(command, cwd=WEB, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout + told.stderr


def test_are_the_pages_small_enough(tmp_path: Path) -> None:
    size = {
        name: len(gzip.compress(export.asset(name), 9)) for name in ("pages.js", "stack.js", "pages.css", "page.html")
    }
    font = len(export.asset("inter.woff2"))
    assert size["pages.js"] <= 40_000
    run("atleus", tierform.FineTuning(tierform.LoRA(32), batch=8, sequence=512), "bert-large").save(
        tmp_path / "run.json"
    )
    content = pages(open_paths([tmp_path / "run.json"]), exported=False)
    data = len(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 9))
    assert sum(size.values()) + font + data <= 220_000
    assert len(export.page_of(replace_exported(content)).encode()) <= 1_000_000


def replace_exported(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "exported": True}


def test_is_the_page_of_the_demo_small_enough() -> None:
    task = tierform.FineTuning(tierform.LoRA(32), batch=8, sequence=512)
    results = [run(chip, task, "bert-large") for chip in ("atleus", "atleus-2.5d", "a100")]
    assert len(export.page_of(pages(opened_results(results), exported=True)).encode()) <= 1_000_000
