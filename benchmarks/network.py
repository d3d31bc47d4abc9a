"""How fast the network engines are: flit-hops per CPU second, a large 3D mesh, analytic evaluations.

Run as a script; prints a table.  With ``--booksim PATH`` (a BookSim2 program of your own) the same runs are timed
with it on this machine, one after the other, and the ratio is printed.
"""

from __future__ import annotations

import argparse
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


def booksim_cpu_s(program: str, rate: float, flits: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.cfg"
        path.write_text(CONFIG)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        # BookSim2 ends with an exit code of its own; its output is not needed.
        command = [program, str(path), f"injection_rate={rate}", f"packet_size={flits}"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--booksim")
    program = arguments.parse_args().booksim
    print(f"{'8x8 mesh, uniform':32s}{'CPU s':>9s}{'Mflit-hops/s':>14s}{'BookSim2 s':>12s}{'ratio':>8s}")
    for flits in (1, 5):
        for rate in (0.1, 0.3):
            run = simulate_traffic(mesh((8, 8)), "uniform", Injection(rate / flits, (flits,)),
                                   sampling=Sampling(period=5000))  # fmt: skip
            other = booksim_cpu_s(program, rate, flits) if program else float("nan")
            name = f"rate {rate}, {flits} flits"
            speed = run.flit_hops / run.cpu_s / 1e6
            print(f"{name:32s}{run.cpu_s:9.3f}{speed:14.2f}{other:12.2f}{other / run.cpu_s:8.1f}")
            if run.compile_s > 1:
                print(f"  (compilation, once: {run.compile_s:.1f} CPU s)")
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
    print(f"analytic latency, 8x8: first {first * 1e3:.1f} ms, another rate {again * 1e6:.0f} us")
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
