"""How fast the network engines are: flit-hops per CPU second, a large 3D mesh, analytic evaluations.

Run as a script; prints a table.  With ``--booksim PATH`` (a BookSim2 program of your own) the same runs are timed
with it on this machine, in turn with ours, and the ratio is printed.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from tierform.network import AnalyticNetwork, chiplets, mesh, mesh_3d, pattern, simulate_traffic
from tierform.network.cycle import CycleNetwork, Injection, Sampling, random_traffic

CONFIG = """topology = mesh; k = 8; n = 2; routing_function = dor; num_vcs = 4; vc_buf_size = 8;
wait_for_tail_credit = 0; vc_allocator = islip; sw_allocator = islip; alloc_iters = 1; credit_delay = 1;
routing_delay = 1; vc_alloc_delay = 1; sw_alloc_delay = 1; st_final_delay = 1; traffic = uniform;
injection_rate_uses_flits = 1; sample_period = 5000; warmup_periods = 3; max_samples = 10; sim_type = latency;
"""


def booksim_speed(program: str, rate: float, flits: int) -> float:
    """BookSim2's flit-hops per CPU second on one run: cycles x nodes x accepted rate x routers traversed, over time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.cfg"
        path.write_text(CONFIG)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [program, str(path), f"injection_rate={rate}", f"packet_size={flits}"]
        # BookSim2 ends with an exit code of its own.
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        cpu_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    found = [
        float(re.findall(pattern, text)[-1])
        for pattern in (
            r"Time taken is (\d+) cycles",
            r"Accepted flit rate average = (\S+) \(",
            r"Hops average = (\S+)",
        )
    ]
    return float(np.prod(found)) * 64 / cpu_s


def ours(rate: float, flits: int) -> tuple[float, float]:
    """Our flit-hops per CPU second, and the CPU seconds of compiling (0 if done before)."""
    run = simulate_traffic(mesh((8, 8)), "uniform", Injection(rate / flits, (flits,)), sampling=Sampling(period=5000))
    return run.flit_hops / run.cpu_s, run.compile_s


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--booksim", help="a BookSim2 program to compare with")
    arguments.add_argument("--runs", type=int, default=3, help="runs of each case, alternating between the two")
    options = arguments.parse_args()
    program, runs = options.booksim, options.runs
    compile_s = ours(0.1, 1)[1]
    if compile_s > 1:
        print(f"compilation, once: {compile_s:.1f} CPU s")
    print(f"million flit-hops per CPU s, {runs} runs    {'ours':>16s}{'BookSim2':>18s}{'ratio':>16s}")
    for flits in (1, 5):
        for rate in (0.1, 0.3):
            # The two take turns, so that a busy machine slows both.
            pairs = [
                (ours(rate, flits)[0] / 1e6, booksim_speed(program, rate, flits) / 1e6 if program else float("nan"))
                for _ in range(runs)
            ]
            row = "".join(
                f"{min(values):8.2f} {np.median(values):8.2f}"
                for values in ([a for a, _ in pairs], [b for _, b in pairs], [a / b for a, b in pairs])
            )
            print(f"8x8 mesh, {flits} flits, rate {rate} (least, median) {row}", flush=True)
    network = CycleNetwork(mesh_3d((16, 16, 4)))
    traffic = random_traffic(pattern("uniform", 1024), Injection(0.1), network.memory, 0)
    network.run(traffic, 0)
    started = time.process_time()
    network.run(traffic, 100_000)
    print(f"16x16x4 mesh, uniform 0.1, 100,000 cycles: {time.process_time() - started:.1f} CPU s")
    case, matrix = AnalyticNetwork(mesh((8, 8))), pattern("uniform", 64).matrix()
    started = time.process_time()
    case.latency(matrix, 0.1)
    first = time.process_time() - started
    started = time.process_time()
    for rate in np.linspace(0.01, 0.3, 100):
        case.latency(matrix, rate)
    again = (time.process_time() - started) / 100
    rng = np.random.default_rng(0)
    matrices = [made / made.sum(axis=1)[:, None] for made in rng.random((100, 64, 64))]
    started = time.process_time()
    for made in matrices:
        case.latency(made, 0.1)
    other = (time.process_time() - started) / 100
    print(f"analytic latency, 8x8: a network's first {first * 1e3:.1f} ms, another matrix {other * 1e6:.0f} us, "
          f"another rate {again * 1e6:.0f} us")  # fmt: skip
    for topology in (mesh((32, 32)), mesh_3d((8, 8, 4)), chiplets((2, 2), (8, 8), links_per_edge=2)):
        analytic = AnalyticNetwork(topology)
        nodes = np.arange(topology.nodes)
        analytic.flow_cost(nodes[:16], nodes[-30:])
        times = []
        for shift in range(5):
            started = time.process_time()
            analytic.flow_cost(nodes[shift : shift + 16], nodes[-30 - shift :])
            times.append(time.process_time() - started)
        print(f"flow_cost, {topology.name} of {topology.routers}: {np.median(times) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
