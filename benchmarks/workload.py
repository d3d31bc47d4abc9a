"""How long loading a model and expanding its task take: CPU time, median of several runs, imports excluded."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from statistics import median

from tierform.workload import FineTuning, Inference, LoRA, expand, load_model

RUNS = 9


def cpu_s(action: Callable[[], object]) -> float:
    found = []
    for _ in range(RUNS):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return median(found)


def import_cpu_s() -> float:
    code = "import time; s = time.process_time(); import tierform.workload; print(time.process_time() - s)"
    found = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return median(float(done.stdout) for done in found)


def main() -> None:
    bert, llama, large, latent = map(load_model, ("bert-large", "llama-3.1-8b", "llama-3.1-405b", "deepseek-v3"))
    new = count(1)  # a batch that was not expanded before
    cases: list[tuple[str, Callable[[], object]]] = [
        ("bert-large, LoRA, a new batch", lambda: expand(bert, FineTuning(LoRA(32), batch=next(new)))),
        ("bert-large, LoRA, the same again", lambda: expand(bert, FineTuning(LoRA(32), batch=8))),
        ("llama-3.1-8b, prefill, 256 tokens", lambda: expand(llama, Inference(next(new), sequence=2048, decode=256))),
        ("llama-3.1-405b, full fine-tuning", lambda: expand(large, FineTuning(batch=next(new), sequence=4096))),
        ("deepseek-v3, full fine-tuning", lambda: expand(latent, FineTuning(batch=next(new), sequence=4096))),
        ("load only: bert-large", lambda: load_model("bert-large")),
    ]
    print(f"{'import tierform.workload':42s} {import_cpu_s() * 1e3:8.1f} ms CPU")
    for name, action in cases:
        print(f"{name:42s} {cpu_s(action) * 1e3:8.2f} ms CPU")
    one = load_model("llama-3.2-1b")
    times = [cpu_s(lambda model=model: expand(model, FineTuning(batch=next(new)))) for model in (large, one)]  # type: ignore[misc]
    ratio = times[0] / times[1]
    print(f"{'expand: 126 layers against 16 layers':42s} {ratio:8.2f} x")


if __name__ == "__main__":
    main()
