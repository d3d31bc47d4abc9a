"""Full training, hybrid training and LoRA from the start at equal CPU time, over several seeds; the parts of a step.

``python benchmarks/tuning.py search CASE FILES`` tries learning rates for each method on validation samples,
``compare CASE FILES --search FOUND.json`` trains the three methods, ``steps CASE FILES`` measures the parts of a step
and its peak memory before and after the switch.  ``tuning_report.py`` shows what compare wrote.

One thread.  The clock is the process's CPU time inside training steps: it equals wall time on an idle machine and does
not count the neighbours' load.  All methods of a seed share the first weights and the batches.  Full training is run
once, with HpT's rule asked and overruled: a checkpoint is taken before the step at which the rule begins the trial, and
the hybrid run continues from it (continued runs are bit-identical), charged with the time until there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from tierform.errors import TierformError
from tierform.files import write_json
from tierform.tuning.lowrank import change_norm, trainable_count, watched_weights
from tierform.tuning.meter import step_peak_B, step_shares
from tierform.tuning.rule import Decision, FixedStep, HpTRule, Window
from tierform.tuning.side import optimizer
from tierform.tuning.trainer import HybridTrainer
from tuning_cases import CASES

METHODS = ("full", "hybrid", "lora")
SHADOWS = (20, 40, 60, 80, 100, 120, 160, 200)  # windows for which the rule is asked beside the run's own


class Overruled(HpTRule):
    """HpT's rule, asked and not followed: what it would begin is noted in `would`."""

    would: int | None = None

    def end_window(self, window: Window) -> Decision:
        """The rule's answer, noted; the decision is to wait."""
        found = super().end_window(window)
        if found.action == "trial" and self.would is None:
            self.would = window.step
        return Decision(found.step, "wait", found.reason, found.numbers)


Overruled.__name__ = "HpTRule"  # its checkpoints are those of the rule itself


class Clocked:
    """A trainer whose steps are counted in CPU seconds; `losses` are the main model's."""

    def __init__(self, trainer, case, used=0.0):
        self.trainer, self.case, self.used = trainer, case, used
        self.points, self.losses, self.by_phase = [], [], {}

    def step(self):
        """One step of the trainer, counted."""
        batch = self.case.batches(self.trainer.step_number)
        phase = self.trainer.phase
        start = time.process_time()
        loss = self.trainer.step(batch)
        passed = time.process_time() - start
        self.used += passed
        self.losses.append(loss)
        count, seconds = self.by_phase.get(phase, (0, 0.0))
        self.by_phase[phase] = (count + 1, seconds + passed)
        return loss

    def point(self, whole=False):
        """The error now, not counted."""
        measure = self.case.whole if whole else self.case.quick
        self.points.append((self.used, self.trainer.step_number, measure(self.trainer.model)))
        self.trainer.model.train()


def warmed(steps):
    return lambda made: torch.optim.lr_scheduler.LambdaLR(made, lambda step: min(1.0, (step + 1) / steps))


def make_trainer(case, rule, args, low_rate=None):
    """A trainer with the rates of `args`; the rule watches the lowest layer, as in HpT's wind application."""
    return HybridTrainer(
        case.model,
        case.loss,
        rule,
        case.low,
        layer=0,
        optimizer=optimizer(args.optimizer, args.rate),
        low_optimizer=optimizer(args.optimizer, low_rate or args.low_rate),
        schedule=warmed(args.warm),
        low_schedule=warmed(args.warm),
    )


class Shadows:
    """The rule's answers for other windows, from the same losses and weights (full training only)."""

    def __init__(self, model, low):
        self.model, self.low = model, low
        self.rules = {size: HpTRule(size) for size in SHADOWS}
        self.losses, self.kept, self.told = [], {}, {size: [] for size in SHADOWS}

    def see(self, step, loss):
        """A step of full training has been made."""
        self.losses.append(loss)
        if step % 20:
            return
        now = {n: w.clone() for n, w in watched_weights(self.model, self.low.targets, 0).items()}
        self.kept[step] = now
        for size, rule in self.rules.items():
            if step % size == 0:
                before = self.kept.get(step - size)
                change = change_norm(now, before) if before else None
                decision = rule.end_window(Window(step, mean(self.losses[-size:]), change))
                self.told[size].append({"action": decision.action, "step": step, **decision.numbers})
        self.kept = {at: one for at, one in self.kept.items() if at > step - max(SHADOWS)}


def run_seed(name, seed, args, write, done):
    """The three methods of one seed; `write(rows)` after every point."""
    case = CASES[name](args.files, seed, False)
    torch.manual_seed(seed)
    start = {key: one.clone() for key, one in case.model.state_dict().items()}
    rows = dict(done)
    marks = [args.budget * (i + 1) / args.points for i in range(args.points)]

    def note(method, clocked, extra=None):
        trainer = clocked.trainer
        rows[method] = {
            "seed": seed,
            "method": method,
            "points": clocked.points,
            "losses": clocked.losses,
            "by_phase": clocked.by_phase,
            "steps": trainer.step_number,
            "cpu_s": clocked.used,
            "switch": trainer.journal.switch_step,
            "learning": trainable_count(trainer.model),
            "decisions": trainer.journal.to_dict()["decisions"],
            "yardsticks": case.yardsticks,
            "title": case.title,
            "unit": case.unit,
            **(extra or {}),
        }
        write(rows)

    def go(method, clocked, each=lambda: None, extra=lambda: None):
        while clocked.used < args.budget:
            clocked.step()
            each()
            while (
                clocked.used < args.budget
                and len(clocked.points) < len(marks)
                and clocked.used >= marks[len(clocked.points)]
            ):
                clocked.point()
                note(method, clocked, extra())
        clocked.point(whole=True)
        note(method, clocked, extra())
        if method == "hybrid" and args.json:
            clocked.trainer.journal.write(Path(args.json).with_suffix("") / f"seed-{seed}")
        last = rows[method]
        print(
            f"{time.strftime('%H:%M')} seed {seed} {method:7s} steps {last['steps']:5d} cpu {last['cpu_s']:.0f} s "
            f"switch {last['switch']} error {last['points'][-1][2]:.4f} by phase {last['by_phase']}",
            flush=True,
        )

    def lora():
        case = CASES[name](args.files, seed, False)
        torch.manual_seed(seed)
        trainer = make_trainer(case, FixedStep(10**9, window=10**9), args)
        trainer.switch()
        go("lora", Clocked(trainer, case))

    methods = args.methods or METHODS
    if methods == ["lora"]:
        lora()
        return
    if args.methods == ["hybrid"]:  # beside runs that are there already
        trainer = make_trainer(case, HpTRule(args.window), args, args.hybrid_rate)
        go("hybrid", Clocked(trainer, case), extra=lambda: {"window": args.window})
        return
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        path = Path(folder) / "before.tft"
        rule = Overruled(args.window)
        full = Clocked(make_trainer(case, rule, args), case)
        shadows = Shadows(case.model, case.low)
        taken = {}

        def each():
            step = full.trainer.step_number
            shadows.see(step, full.losses[-1])
            if rule.would is None and (step + 1) % args.window == 0:
                full.trainer.save(path)
                taken.update(
                    used=full.used, points=list(full.points), losses=list(full.losses), by_phase=dict(full.by_phase)
                )

        go("full", full, each, lambda: {"shadows": shadows.told, "trial_begins": rule.would})
        if rule.would is None:
            rows["hybrid"] = {**rows["full"], "method": "hybrid", "note": "the rule began no trial"}
            write(rows)
        else:
            case.model.load_state_dict(start)
            trainer = make_trainer(case, HpTRule(args.window), args, args.hybrid_rate)
            trainer.resume(path)
            hybrid = Clocked(trainer, case, taken["used"])
            hybrid.points, hybrid.losses, hybrid.by_phase = taken["points"], taken["losses"], taken["by_phase"]
            again = hybrid.step()
            same = again == full.losses[rule.would - 1]
            if not same:
                raise SystemExit(f"the continued run differs: {again} against {full.losses[rule.would - 1]}")
            go("hybrid", hybrid, extra=lambda: {"continued_bit_by_bit": same, "trial_begins": rule.would})
    if "lora" in methods:
        lora()


def compare(args):
    name, args.files = args.files[0], args.files[1:]
    if args.search:
        best = best_rates(args.search)
        args.rate, args.low_rate = best["full"], best["lora"]
        args.hybrid_rate = best.get("hybrid", best["lora"])
    path = Path(args.json) if args.json else None
    kept = json.loads(path.read_text())["seeds"] if path and path.exists() else {}
    for seed in range(args.first_seed, args.first_seed + args.seeds):

        def write(rows, seed=seed):
            kept[str(seed)] = rows
            settings = {k: v for k, v in vars(args).items() if k not in ("files", "json", "scratch")}
            if args.json:
                write_json(args.json, {"case": name, "settings": settings, "seeds": kept})

        run_seed(name, seed, args, write, kept.get(str(seed), {}))


def best_rates(path):
    """The rate of each method with the least validation error in what search wrote."""
    found = [one for one in json.loads(Path(path).read_text())["found"] if one["error"] is not None]
    order = sorted(found, key=lambda one: -one["error"])
    return {one["method"]: one["rate"] for one in order}


def search(args):
    """Each rate of each method for as many steps, one seed that is not used later; validation error.

    Hybrid is searched after the other two: full training at its best rate, then the switch and as many steps again.
    """
    name, args.files = args.files[0], args.files[1:]
    path = Path(args.json) if args.json else Path(tempfile.mkdtemp()) / "search.json"
    methods = args.methods or list(METHODS)
    found = (
        [one for one in json.loads(path.read_text())["found"] if one["method"] not in methods] if path.exists() else []
    )
    rates = {"full": args.rates, "lora": args.low_rates, "hybrid": args.hybrid_rates}
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        for method in sorted(methods, key=("full", "lora", "hybrid").index):
            start = Path(folder) / "full.tft"
            if method == "hybrid":
                args.rate = best_rates(path)["full"]
                _searched(name, args, "full", start)
            for rate in rates[method]:
                args.low_rate = rate
                args.rate = args.rate if method == "hybrid" else rate
                clocked = _searched(name, args, method, start)
                last = clocked.losses[-args.steps // 4 :]
                error = clocked.points[-1][2] if clocked.points else float("nan")
                found.append(
                    {
                        "method": method,
                        "rate": rate,
                        "error": error,
                        "loss": mean(last),
                        "cpu_s": clocked.used,
                        "losses": clocked.losses,
                    }
                )
                print(
                    f"{time.strftime('%H:%M')} {name} {method:6s} rate {rate:g}: validation {error:.4f}, "
                    f"loss {mean(last):.4f}, {1e3 * clocked.used / args.steps:.0f} ms",
                    flush=True,
                )
                write_json(path, {"case": name, "steps": args.steps, "found": found})


def _searched(name, args, method, start):
    case = CASES[name](args.files, 1000, True)
    torch.manual_seed(1000)
    trainer = make_trainer(case, FixedStep(10**9, window=10**9), args)
    if method == "hybrid":
        trainer.resume(start)
    if method != "full":
        trainer.switch()
    clocked = Clocked(trainer, case)
    try:
        for _ in range(args.steps):
            clocked.step()
        clocked.point()
    except TierformError as problem:
        print(problem)
    if method == "full":
        trainer.save(start)
    return clocked


def steps(args):
    """Medians of the parts of a step and the peak of tensors, in full and in low-rank mode."""
    case = CASES[args.files[0]](args.files[1:], 0, False)
    rows = {}
    args.rate = args.low_rate = 1e-6
    trainer = make_trainer(case, FixedStep(10**9, window=10**9), args)
    for phase in ("full", "low"):
        trainer.step(case.batches(0))
        shares = step_shares(trainer.model, case.loss, case.batches(1), trainer.optimizer, args.repeats)
        rows[phase] = shares | {
            "peak_B": step_peak_B(trainer.model, case.loss, case.batches(2), trainer.optimizer),
            "learning": trainable_count(trainer.model),
            "all": sum(one.numel() for one in trainer.model.parameters()),
        }
        if phase == "full":
            trainer.switch()
    print(f"{case.title}\n{'part (ms)':20s}{'full':>10s}{'low':>10s}{'ratio':>8s}")
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
        write_json(args.json, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["search", "compare", "steps"])
    parser.add_argument("files", nargs="*", help=f"one of {', '.join(CASES)}, then its files")
    parser.add_argument("--budget", type=float, default=160, help="CPU seconds of each run")
    parser.add_argument("--points", type=int, default=6, help="tests of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="hybrid or lora alone add to --json")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--window", type=int, default=60)
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate of full training")
    parser.add_argument("--search", help="what search wrote: take the best rates from it")
    parser.add_argument("--low-rate", type=float, default=1e-3, help="learning rate of low-rank training")
    parser.add_argument("--hybrid-rate", type=float, help="of hybrid training after the switch; else --low-rate")
    parser.add_argument("--hybrid-rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-5, 1e-4, 3e-4, 1e-3])
    parser.add_argument("--low-rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3, 3e-3])
    parser.add_argument("--warm", type=int, default=40, help="steps of linear warm-up")
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--steps", type=int, default=100, help="of a search")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--scratch", help="folder for a checkpoint of each run")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    {"search": search, "compare": compare, "steps": steps}[args.task](args)
