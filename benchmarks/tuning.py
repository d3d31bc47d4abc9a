"""Hybrid training against full-parameter training and LoRA from the start, at equal CPU time, over several seeds.

Run as ``python benchmarks/tuning.py wind WIND.csv | lm TRAIN.txt TEST.txt | vit | steps WIND.csv [--budget S]
[--seeds N] [--window K] [--layers L] [--rate LR] [--json FILE]``.  Each method trains until it has used the budget of
CPU time (one thread); tests are not counted.  ``steps`` measures the parts of a step and its peak memory before and
after the switch.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from tierform.tuning.applications import build, low_rank_settings
from tierform.tuning.feeding import ShuffledBatches, error_on, squared_error
from tierform.tuning.lowrank import LowRank, trainable_count
from tierform.tuning.meter import step_peak_B, step_shares
from tierform.tuning.rule import FixedStep, HpTRule
from tierform.tuning.tables import Samples, read_series, series_samples
from tierform.tuning.trainer import HybridTrainer, optimizer

METHODS = ("full", "hybrid", "lora")


def train(method, model, loss, batches, evaluate, low, make, window, budget_s, layer):
    """CPU-time-limited training; rows of (CPU s, steps, error) at each fifth of the budget."""
    rule = HpTRule(window) if method == "hybrid" else FixedStep(10**9, window=10**9)
    trainer = HybridTrainer(model, loss, rule, low, optimizer=make, layer=layer)
    if method == "lora":
        trainer.switch()
    used, points, step = 0.0, [], 0
    wall = 0.0
    while used < budget_s:
        batch = batches(step)
        start, began = time.process_time(), time.perf_counter()
        trainer.step(batch)
        used += time.process_time() - start
        wall += time.perf_counter() - began
        step += 1
        if used >= budget_s * (len(points) + 1) / 5:
            points.append((used, step, evaluate(trainer.model)))
    switch = trainer.journal.switch_step if method == "hybrid" else None
    trials = sum(one.action in ("trial", "repeat") for one in trainer.journal.decisions)
    return {
        "method": method,
        "steps": step,
        "cpu_s": used,
        "wall_s": wall,
        "points": points,
        "switch": switch,
        "trials": trials,
        "learning": trainable_count(trainer.model),
    }


def compare(title, case, args, unit):
    rows = []
    for seed in range(args.seeds):
        for method in METHODS:
            torch.manual_seed(seed)
            row = {"seed": seed, **train(method, *case(seed), args.window, args.budget, 0)}
            rows.append(row)
            curve = "  ".join(f"{error:.4f}@{used:.0f}s" for used, _, error in row["points"])
            print(
                f"seed {seed} {method:7s} steps {row['steps']:5d} wall {row['wall_s']:6.1f} s switch {row['switch']} "
                f"trials {row['trials']}  {curve}",
                flush=True,
            )
            if args.json:
                Path(args.json).write_text(json.dumps({"title": title, "unit": unit, "rows": rows}))
    print(f"\n{title}: {unit} after {args.budget:g} s of CPU time, {args.seeds} seeds")
    for method in METHODS:
        last = [row["points"][-1][2] for row in rows if row["method"] == method]
        steps = [row["steps"] for row in rows if row["method"] == method]
        spread = stdev(last) if len(last) > 1 else 0.0
        print(f"  {method:7s} {mean(last):.4f} +- {spread:.4f}   steps {min(steps)}-{max(steps)}")


def wind_split(path):
    return series_samples(read_series(path, 57), 12, slice(480, 2120), unit="m/s")


def wind(args):
    split = wind_split(args.files[0])
    rows = np.random.default_rng(0).permutation(len(split.test))[:192]
    test = Samples(split.test.inputs[rows], split.test.targets[rows], split.test.scale)

    def case(seed):
        model = build("wind", seed)
        model.layers = model.layers[: args.layers]  # the published size has 12
        return (
            model,
            squared_error,
            ShuffledBatches(split.train, args.batch, seed),
            lambda model: error_on(model, test)["rmse"],
            low_rank_settings(),
            optimizer("adamw", args.rate),
        )

    compare(f"wind, 57 stations, {args.layers} layers", case, args, "RMSE in m/s")


def lm(args):
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = [torch.frombuffer(bytearray(Path(one).read_bytes()), dtype=torch.uint8).long() for one in args.files]
    length = 64

    def batches(seed):
        def batch(step):
            generator = torch.Generator().manual_seed(seed * 10**7 + step)
            starts = torch.randint(len(texts[0]) - length, (8,), generator=generator)
            return torch.stack([texts[0][s : s + length] for s in starts])

        return batch

    def loss(model, ids):
        return model(input_ids=ids, labels=ids).loss

    def evaluate(model):
        model.eval()
        with torch.no_grad():
            ids = texts[1][: 64 * 1000].view(-1, 64)[::16]
            return float(loss(model, ids)) / np.log(2)

    def case(seed):
        config = LlamaConfig(
            vocab_size=256,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
        )
        low = LowRank(targets=("q_proj", "v_proj"), also_train=("model.embed_tokens", "lm_head"))
        return (LlamaForCausalLM(config), loss, batches(seed), evaluate, low, optimizer("adamw", 1e-3))

    compare("byte-level language model, 0.9 M parameters", case, args, "bits per byte")


def vit(args):
    from sklearn.datasets import load_digits
    from transformers import ViTConfig, ViTForImageClassification

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.tensor(digits.images[order] / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target[order])

    def case(seed):
        def batch(step):
            generator = torch.Generator().manual_seed(seed * 10**7 + step)
            rows = torch.randint(1400, (16,), generator=generator)
            return images[rows], labels[rows]

        def loss(model, batch):
            return torch.nn.functional.cross_entropy(model(pixel_values=batch[0]).logits, batch[1])

        def evaluate(model):
            model.eval()
            with torch.no_grad():
                return 100 * float((model(pixel_values=images[1400:]).logits.argmax(1) != labels[1400:]).float().mean())

        config = ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=384,
            num_labels=10,
        )
        model = ViTForImageClassification(config)
        names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        targets = ("query", "value") if "query" in names else ("q_proj", "v_proj")
        low = LowRank(targets=targets, also_train=("classifier", "vit.embeddings"))
        return model, loss, batch, evaluate, low, optimizer("adamw", 1e-3)

    compare("vision transformer on 8 x 8 digits, 0.5 M parameters", case, args, "test error in %")


def steps(args):
    split = wind_split(args.files[0])
    batches = ShuffledBatches(split.train, args.batch, 0)
    rows = {}
    trainer = HybridTrainer(
        build("wind"),
        squared_error,
        FixedStep(10**9, window=10**9),
        low_rank_settings(),
        optimizer=optimizer("adamw", 1e-4),
    )
    for phase in ("full", "low"):
        trainer.step(batches(0))
        shares = step_shares(trainer.model, squared_error, batches(1), trainer.optimizer, args.repeats)
        rows[phase] = shares | {
            "peak_B": step_peak_B(trainer.model, squared_error, batches(2), trainer.optimizer),
            "learning": trainable_count(trainer.model),
            "all": sum(one.numel() for one in trainer.model.parameters()),
        }
        if phase == "full":
            trainer.switch()
    print(f"{'part (ms)':20s}{'full':>10s}{'low':>10s}{'ratio':>8s}")
    for key in rows["full"]:
        if key.endswith("_s"):
            a, b = 1e3 * rows["full"][key], 1e3 * rows["low"][key]
            print(f"{key[:-2]:20s}{a:10.1f}{b:10.1f}{a / b if b else float('inf'):8.2f}")
    frozen = rows["low"]["all"] - rows["low"]["learning"]
    fall = rows["full"]["peak_B"] - rows["low"]["peak_B"]
    print(
        f"peak {rows['full']['peak_B'] / 1e6:.1f} -> {rows['low']['peak_B'] / 1e6:.1f} MB, falls by {fall / 1e6:.1f}; "
        f"gradients and two states of {frozen} frozen: {12e-6 * frozen:.1f} MB, ratio {fall / 12 / frozen:.3f}"
    )
    if args.json:
        Path(args.json).write_text(json.dumps(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=["wind", "lm", "vit", "steps"])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--budget", type=float, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--window", type=int, default=12)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--layers", type=int, default=12, help="of the wind model")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of the wind model")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"wind": wind, "lm": lm, "vit": vit, "steps": steps}[args.case](args)
