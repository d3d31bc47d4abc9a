"""How long a move on the studio's What-if page takes, from the key to the new number.  `python benchmarks/what_if.py`.

BERT-large, LoRA of rank 32, on ``atleus``: the moves of three constants in Chromium (without a GPU), timed in the page
from the key that asks to the frame that shows the number, and the CPU time of the studio's processes for each.  Needs
Node.js, Chromium and ``make studio-tools``; the parts within the studio are timed without them.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tierform
from tierform.studio import worker
from tierform.studio.runs import moved_content

ROOT = Path(__file__).parents[1]
TASK = tierform.FineTuning(tierform.LoRA(32), batch=8, sequence=512)
MOVES = [
    {"path": "network.width", "values": [120 + 8 * step for step in range(15)]},
    {"path": "components.reram.adc_bits", "values": [5, 7, 6, 9, 4, 10, 5, 7, 6, 9]},
    {"path": "network.clock", "values": [9e8 + 2e7 * step for step in range(15)]},
]
WARM = [{"path": "network.width", "values": [96, 104, 112]}]
PAUSE_MS = 400
BAR_MS = (150, 300)


def of_parts() -> dict[str, list[float]]:
    """CPU milliseconds of what the studio's process does for a move: the job read and varied, costed, told."""
    job = {**tierform.simulate("bert-large", TASK, "atleus").view()["job"], "thermal": "steady"}
    found: dict[str, list[float]] = {"the job read and varied": [], "simulate": [], "the answer as JSON": []}
    for step in range(-3, 15):
        asked = {"job": job, "vary": {"network.width": f"{144 + 8 * step} bit"}}
        times = [time.process_time()]
        made = worker._job(asked, ())
        times.append(time.process_time())
        result = made.simulate()
        times.append(time.process_time())
        text = json.dumps(moved_content(result))
        times.append(time.process_time())
        assert len(text) < 10_000
        if step >= 0:
            for name, before, after in zip(found, times, times[1:], strict=False):
                found[name].append(1e3 * (after - before))
    return found


def cpu_s(process: int) -> float:
    """CPU seconds (user and system) of a process and all below it; Linux only."""
    stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") + sum(cpu_s(int(one)) for one in below)


def in_the_browser(chromium: str, node: str) -> tuple[dict[str, list[float]], float]:
    """Milliseconds of each move by constant, and the CPU milliseconds of the studio's processes for one."""
    with tempfile.TemporaryDirectory() as folder:
        run, config = Path(folder) / "run.json", Path(folder) / "config.json"
        tierform.simulate("bert-large", TASK, "atleus").save(run)
        command = [sys.executable, "-m", "tierform", "studio", str(run), "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as studio:
            assert studio.stdout is not None
            address = studio.stdout.readline().split()[-1]
            given = {"chromium": chromium, "address": address, "moves": MOVES, "warm": WARM, "pause_ms": PAUSE_MS}
            config.write_text(json.dumps(given))
            try:
                moves = [node, str(ROOT / "studio" / "tests" / "moves.mjs"), str(config)]
                with subprocess.Popen(moves, stdout=subprocess.PIPE, text=True) as driven:
                    assert driven.stdout is not None
                    driven.stdout.readline()  # what is needed once is there
                    before = cpu_s(studio.pid)
                    found: dict[str, list[float]] = json.loads(driven.stdout.readline())
                    spent = cpu_s(studio.pid) - before
            finally:
                studio.terminate()
    return found, 1e3 * spent / sum(map(len, found.values()))


def main() -> None:
    print(f"{'CPU of a move':42} {'median ms':>10} {'max':>8}")
    for name, times in of_parts().items():
        print(f"{name:42} {statistics.median(times):10.1f} {max(times):8.1f}")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    node = shutil.which("node")
    if not (chromium and node):
        print("note: no Node.js or no Chromium here: moves are not timed in a browser")
        return
    found, each = in_the_browser(chromium, node)
    print(f"\n{'from the key to the new number':42} {'median ms':>10} {'95th':>8} {'max':>8}   bars {BAR_MS}")
    found["all"] = [one for times in found.values() for one in times]
    for name, times in found.items():
        ninety_fifth = sorted(times)[int(0.95 * len(times))]
        print(f"{name:42} {statistics.median(times):10.0f} {ninety_fifth:8.0f} {max(times):8.0f}")
    print(f"CPU of the studio's processes, what limits each included: {each:.0f} ms a move")


if __name__ == "__main__":
    main()
