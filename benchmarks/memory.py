"""How fast the memory engines are, in CPU time: ``python benchmarks/memory.py [DRAMSIM3 CONFIG]``.

Saturated and spaced random reads on every default grade of the library.  With the path of a DRAMsim3 binary and of one
of its configurations, both simulators run the same trace of random reads and the ratio of their rates is printed.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tierform.compat.dramsim.configuration import read_ini
from tierform.memory import load_memory
from tierform.memory.cycle import CycleMemory, Trace
from tierform.memory.standard import load_dram
from tierform.memory.traffic import requests

GRADES = ("ddr4-2400", "ddr5-4800", "lpddr5-6400", "gddr6-16", "hbm2-2000", "hbm2e-3200", "hbm3-6400")


def best_rate(memory: CycleMemory, trace: Trace, cycles: int | None = None) -> float:
    """Requests done per CPU second, best of five."""
    results = [memory.run(trace, cycles) for _ in range(5)]
    return max((result.reads + result.writes) / result.cpu_s for result in results)


def main() -> None:
    print(f"{'memory':14}{'saturated':>14}{'spaced':>14}{'stream':>14}   million requests per CPU second")
    for name in GRADES:
        spec = load_dram(name)
        memory = CycleMemory(spec)
        random = requests(spec, "random", 100_000)
        spaced = Trace(np.arange(100_000, dtype=np.int64) * 20, random.address, random.is_write)
        rates = [best_rate(memory, trace) for trace in (random, spaced, requests(spec, "stream", 100_000))]
        print(f"{name:14}" + "".join(f"{rate / 1e6:14.2f}" for rate in rates))
    started = time.process_time()
    for _ in range(1000):
        load_memory("hbm2").transfer(1e6, "random", 0.5)
    print(f"analytic: load and transfer {(time.process_time() - started):.2f} ms each (file read once)")
    if len(sys.argv) == 3:
        against_dramsim3(Path(sys.argv[1]), Path(sys.argv[2]))


def against_dramsim3(binary: Path, config: Path, cycles: int = 100_000) -> None:
    memory = CycleMemory(read_ini(config))
    burst = np.random.default_rng(1).integers(0, 2**24, 100_000)
    trace = Trace(np.arange(100_000), burst * 64, np.zeros(100_000, np.bool_))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reads.trace"
        lines = (
            f"{address:#x} READ {cycle}\n"
            for address, cycle in zip(trace.address.tolist(), range(100_000), strict=True)
        )
        path.write_text("".join(lines))
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [str(binary), str(config), "-c", str(cycles), "-t", str(path), "-o", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        theirs_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    done = memory.run(trace, cycles).reads
    ours = best_rate(memory, trace, cycles)
    print(f"{config.stem}, saturated random reads, million per CPU second:")
    print(f"{ours / 1e6:.2f} here, {done / theirs_s / 1e6:.3f} in DRAMsim3, a ratio of {ours * theirs_s / done:.1f}")


if __name__ == "__main__":
    main()
