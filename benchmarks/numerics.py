"""How fast the crossbar emulation is: one 768 x 768 layer at batch 128, and a BERT-base-sized forward pass.

Run as ``python benchmarks/numerics.py [threads] [--bert]``.  Best of the repeats; CPU time is that of all threads.
"""

import sys
import time

import torch

from tierform.numerics.chip_view import CrossbarFormat
from tierform.numerics.layer import CrossbarLinear
from tierform.numerics.noise import load_noise


def best(action, repeats=30, warm=3):
    wall, cpu = [], []
    for _ in range(warm):
        action()
    for _ in range(repeats):
        start, spent = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - spent)
    return 1e3 * min(wall), 1e3 * min(cpu)


def one_layer():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(768, 768) * 0.02, requires_grad=False)
    x = torch.randn(128, 768)
    plain = best(lambda: torch.nn.functional.linear(x, weight))
    print(f"{'case':62s} {'wall ms':>8s} {'CPU ms':>8s} {'x plain':>8s}")
    print(f"{'plain float32 matmul':62s} {plain[0]:8.2f} {plain[1]:8.2f} {1.0:8.1f}")
    four = weight.repeat(4, 1)
    slices = best(lambda: torch.nn.functional.linear(x, four))
    alone = "float32 matmul of four slices, nothing else"
    print(f"{alone:62s} {slices[0]:8.2f} {slices[1]:8.2f} {slices[1] / plain[1]:8.1f}")
    cases = [
        ("four 2-bit slices, 8-bit ADC, one input slice, whole columns", {"rows": 768}, None),
        ("the same in 128-row blocks", {"rows": 128}, None),
        ("the same, programming error (analog sums)", {"rows": 128}, "programming-2pct"),
        ("128-row blocks, 8 one-bit input slices, ADC 6 bits", {"rows": 128, "dac_bits": 1, "adc_bits": 6}, None),
        ("128-row blocks, 1-bit inputs, lossless (integer product)", {"rows": 128, "dac_bits": 1, "adc_bits": 9}, None),
    ]
    for name, changes, noise in cases:
        options = {"dac_bits": 8, "adc_range": "calibrated", **changes}
        if options["dac_bits"] == 1:
            options["adc_range"] = "granular"
        layer = CrossbarLinear(weight, None, CrossbarFormat(**options), noise=load_noise(noise) if noise else None)
        with torch.no_grad():
            wall, cpu = best(lambda layer=layer: layer(x))
        print(f"{name:62s} {wall:8.2f} {cpu:8.2f} {cpu / plain[1]:8.1f}")
    form = CrossbarFormat(adc_bits=8, inverted_columns=True)
    layer = CrossbarLinear(weight, None, form, noise=load_noise("programming-2pct"))
    for layer.fidelity in ("bits", "surrogate", "weights"):
        name = f"128-row blocks, 8 one-bit input slices, noisy cells, {layer.fidelity}"
        with torch.no_grad():
            wall, cpu = best(lambda layer=layer: layer(x))
        print(f"{name:62s} {wall:8.2f} {cpu:8.2f} {cpu / plain[1]:8.1f}")


def bert_base():
    from transformers import BertConfig, BertModel

    from tierform.numerics import emulate

    torch.manual_seed(0)
    model = BertModel(BertConfig()).eval()
    ids = torch.randint(0, 30000, (1, 128))
    for name, changes in (
        ("the chip's own lossless ADC", {}),
        ("ADC of 6 bits, every conversion", {"adc_bits": 6, "inverted_columns": False}),
    ):
        start = time.process_time()
        chip = emulate(model, "atleus", **changes)
        built = time.process_time() - start
        with torch.no_grad():
            wall, cpu = best(lambda chip=chip: chip(ids), repeats=1, warm=1)
        print(
            f"BERT-base, 128 tokens, 8 one-bit input slices, {name}: {wall / 1e3:.2f} s wall, "
            f"{cpu / 1e3:.2f} s CPU (programming {built:.1f} s CPU)"
        )
        del chip


if __name__ == "__main__":
    threads = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    torch.set_num_threads(threads[0] if threads else 2)
    print(f"{torch.get_num_threads()} threads")
    one_layer()
    if "--bert" in sys.argv:
        bert_base()
