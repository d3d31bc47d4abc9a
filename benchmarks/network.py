"""How fast the network engines are: flit-hops per CPU second, a large 3D mesh, the analytic against the cycle engine.

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
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from tierform.network import (
    AnalyticNetwork,
    CycleNetwork,
    CycleResult,
    Injection,
    Sampling,
    TrafficClass,
    chiplets,
    mesh,
    mesh_3d,
    pattern,
    simulate_traffic,
    torus,
)
from tierform.network.cycle.engine import random_traffic

CONFIG = """k = 8; n = 2; routing_function = dim_order; num_vcs = 4; vc_buf_size = 8;
wait_for_tail_credit = 0; vc_allocator = islip; sw_allocator = islip; alloc_iters = 1; credit_delay = 1;
routing_delay = 1; vc_alloc_delay = 1; sw_alloc_delay = 1; st_final_delay = 1; traffic = uniform;
injection_rate_uses_flits = 1; sample_period = 5000; warmup_periods = 3; max_samples = 10; sim_type = latency;
"""


def booksim_speed(program: str, topology: str, rate: float, flits: int) -> float:
    """BookSim2's flit-hops per CPU second on one run: cycles x nodes x accepted rate x routers traversed, over time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.cfg"
        path.write_text(CONFIG)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [program, str(path), f"topology={topology}", f"injection_rate={rate}", f"packet_size={flits}"]
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


def cycle_run(rate: float, flits: int, topology: str = "mesh") -> CycleResult:
    """The cycle engine's run of one case."""
    # BookSim2's torus is folded: its links take two cycles.
    net = mesh((8, 8)) if topology == "mesh" else torus((8, 8), latency_cycles=2)
    return simulate_traffic(net, "uniform", Injection(rate / flits, (flits,)), sampling=Sampling(period=5000))


def ours(topology: str, rate: float, flits: int) -> float:
    """Our flit-hops per CPU second."""
    run = cycle_run(rate, flits, topology)
    return run.flit_hops / run.cpu_s


def analytic_s(rate: float, flits: int) -> tuple[float, float, float]:
    """CPU seconds of the analytic latency: another rate, another matrix on the same network, a network's first one."""
    network, matrix = AnalyticNetwork(mesh((8, 8))), pattern("uniform", 64).matrix()
    random = np.random.default_rng(0).random((200, 64, 64))
    matrices = list(random / random.sum(axis=2, keepdims=True))
    rates = np.linspace(0.9, 1.1, len(matrices)) * rate
    new = [AnalyticNetwork(mesh((8, 8))) for _ in range(20)]
    network.latency(matrix, rate, flits)

    def mean_s(calls: list[Callable[[], object]]) -> float:
        started = time.process_time()
        for call in calls:
            call()
        return (time.process_time() - started) / len(calls)

    return (
        mean_s([partial(network.latency, matrix, other, flits) for other in rates]),
        mean_s([partial(network.latency, other, rate, flits) for other in matrices]),
        mean_s([partial(other.latency, matrix, rate, flits) for other in new]),
    )


def print_analytic(runs: int) -> None:
    """How much longer the cycle engine takes than the analytic one, the two in turn."""
    print(
        f"analytic latency, 8x8, {runs} runs (least, median): CPU us, and how many times longer the cycle engine takes"
    )
    for flits in (1, 5):
        for rate in (0.1, 0.3):
            pairs = [(cycle_run(rate, flits).cpu_s, analytic_s(rate, flits)) for _ in range(runs)]
            cycle = [a for a, _ in pairs]
            print(f"{flits} flits, rate {rate}: cycle engine {min(cycle) * 1e3:.0f} {np.median(cycle) * 1e3:.0f} ms")
            for place, name in enumerate(("another rate", "another matrix", "first matrix")):
                times = [b[place] * 1e6 for _, b in pairs]
                ratios = [a / b[place] for a, b in pairs]
                print(
                    f"  {name:16s} {min(times):8.1f} {np.median(times):8.1f} us "
                    f"{min(ratios):10.0f} {np.median(ratios):8.0f}",
                    flush=True,
                )


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--booksim", help="a BookSim2 program to compare with")
    arguments.add_argument("--runs", type=int, default=3, help="runs of each case, alternating between the two")
    arguments.add_argument("--analytic", action="store_true", help="only the analytic latency against the cycle engine")
    arguments.add_argument("--speed", action="store_true", help="only the cycle engine's speed")
    options = arguments.parse_args()
    if options.analytic:
        print_analytic(options.runs)
        return
    program, runs = options.booksim, options.runs
    compile_s = cycle_run(0.1, 1).compile_s
    if compile_s > 1:
        print(f"compilation, once: {compile_s:.1f} CPU s")
    print(f"million flit-hops per CPU s, {runs} runs    {'ours':>16s}{'BookSim2':>18s}{'ratio':>16s}")
    for topology, flits, rate in product(("mesh", "torus"), (1, 5), (0.1, 0.3)):
        # The two take turns, so that a busy machine slows both.
        pairs = [
            (
                ours(topology, rate, flits) / 1e6,
                booksim_speed(program, topology, rate, flits) / 1e6 if program else float("nan"),
            )
            for _ in range(runs)
        ]
        row = "".join(
            f"{min(values):8.2f} {np.median(values):8.2f}"
            for values in ([a for a, _ in pairs], [b for _, b in pairs], [a / b for a, b in pairs])
        )
        print(f"8x8 {topology}, {flits} flits, rate {rate} (least, median) {row}", flush=True)
    if options.speed:
        return
    network = CycleNetwork(mesh_3d((16, 16, 4)))
    traffic = random_traffic([TrafficClass(pattern("uniform", 1024), Injection(0.1))], network.memory, 0)
    network.run(traffic, 0)
    started = time.process_time()
    network.run(traffic, 100_000)
    print(f"16x16x4 mesh, uniform 0.1, 100,000 cycles: {time.process_time() - started:.1f} CPU s")
    print_analytic(runs)
    for net in (mesh((32, 32)), mesh_3d((8, 8, 4)), chiplets((2, 2), (8, 8), links_per_edge=2)):
        analytic = AnalyticNetwork(net)
        nodes = np.arange(net.nodes)
        analytic.flow_cost(nodes[:16], nodes[-30:])
        times = []
        for shift in range(5):
            started = time.process_time()
            analytic.flow_cost(nodes[shift : shift + 16], nodes[-30 - shift :])
            times.append(time.process_time() - started)
        print(f"flow_cost, {net.name} of {net.routers}: {np.median(times) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
