"""How long the main job takes: whole cold processes and calls after import.  `python benchmarks/main_job.py`."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

RUNS = 5
SIMULATE = "simulate bert-large --chip atleus --task finetune --method lora --rank 32 --batch 8 --sequence 512"


def cold_cpu_s(*arguments: str) -> list[float]:
    """CPU seconds (user and system) of whole processes, the first one left out; no result cache of an earlier run."""
    seconds = []
    for run in range(RUNS + 1):
        environment = os.environ | {"TIERFORM_CACHE": "off"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "tierform", *arguments], env=environment, stdout=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if run:
            seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return seconds


def warm_cpu_s() -> list[float]:
    """CPU seconds of one estimate of full fine-tuning of Llama 3.1 405B on 256 chips, after import."""
    import tierform
    from tierform.workload.parallel import Parallelism

    model, chip = tierform.load_model("llama-3.1-405b"), tierform.load_chip("h100")
    task = tierform.FineTuning(batch=64, sequence=4096, recomputation="full")
    split = Parallelism(tensor=8, pipeline=16, data=2)
    seconds = []
    for _ in range(RUNS):
        start = time.process_time()
        tierform.simulate(model, task, chip, parallelism=split)
        seconds.append(time.process_time() - start)
    return seconds


def main() -> None:
    rows = [
        ("tierform --help, whole process", cold_cpu_s("--help"), 0.080),
        ("tierform simulate bert-large ..., whole process", cold_cpu_s(*SIMULATE.split()), 1.5),
        ("405B full fine-tuning, after import", warm_cpu_s(), 0.3),
    ]
    print(f"{'what':50} {'median CPU s':>12} {'min':>8} {'max':>8} {'bar':>6}")
    for name, seconds, bar in rows:
        median = statistics.median(seconds)
        print(f"{name:50} {median:12.3f} {min(seconds):8.3f} {max(seconds):8.3f} {bar:6.2f}")


if __name__ == "__main__":
    main()
