"""How long loading a model and expanding its task take: CPU time, median of several runs, imports excluded."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
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
    load_model("gpt2")  # imports the YAML reader
    cases: list[tuple[str, Callable[[], object]]] = [
        ("bert-large, LoRA fine-tuning", lambda: expand(load_model("bert-large"), FineTuning(LoRA(32), batch=8))),
        (
            "llama-3.1-8b, prefill and 256 tokens",
            lambda: expand(load_model("llama-3.1-8b"), Inference(batch=4, sequence=2048, decode=256)),
        ),
        ("llama-3.1-405b, full fine-tuning", lambda: expand(load_model("llama-3.1-405b"), FineTuning(sequence=4096))),
        ("deepseek-v3, full fine-tuning", lambda: expand(load_model("deepseek-v3"), FineTuning(sequence=4096))),
        ("load only: bert-large", lambda: load_model("bert-large")),
    ]
    print(f"{'import tierform.workload':42s} {import_cpu_s() * 1e3:8.1f} ms CPU")
    for name, action in cases:
        print(f"{name:42s} {cpu_s(action) * 1e3:8.1f} ms CPU")
    one, many = load_model("gpt2"), load_model("llama-3.1-405b")
    ratio = cpu_s(lambda: expand(many, FineTuning())) / cpu_s(lambda: expand(one, FineTuning()))
    print(f"{'expand: 126 layers against 12 layers':42s} {ratio:8.2f} x")


if __name__ == "__main__":
    main()
