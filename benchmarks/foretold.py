"""Steps of the training cases, foretold for a chip that `tierform calibrate` wrote, beside the same steps measured.

``python benchmarks/foretold.py CHIP.yaml CASE FILES ...`` (cases of ``tuning_cases.py``; repeat ``CASE FILES`` after a
``+``).  One thread, the process's own time, steps of the trainer itself; full, then low-rank.  As in the calibration
at the fastest pace of the processor that was seen.
"""

from __future__ import annotations

import argparse

import torch

from tierform.chip.description import load_chip
from tierform.chip.gpu.measure import Pace
from tierform.files import write_json
from tierform.simulation.simulate import simulate
from tierform.tuning.costs import PhaseCost
from tierform.tuning.predict import traced_steps
from tierform.tuning.reference_step import in_step_ratio
from tierform.tuning.rule import FixedStep
from tierform.tuning.side import optimizer
from tierform.tuning.trainer import HybridTrainer
from tuning_cases import CASES


def measured(case, repeats, pace):
    """Seconds of a full and of a low-rank step of the trainer: forward, backward, update, all."""
    made = optimizer("adam", 1e-6)
    trainer = HybridTrainer(
        case.model, case.loss, FixedStep(10**9, window=10**9), case.low, optimizer=made, low_optimizer=made
    )
    found = []
    for _ in range(2):
        for step in range(3):
            trainer.step(case.batches(step))
        found.append(pace.median_s(lambda: trainer.step(case.batches(trainer.step_number)), least=repeats, waits=60))
        if trainer.phase == "full":
            trainer.switch()
    return found


def main():
    """Foretold and measured steps of every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chip")
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--again", action="store_true", help="measure in_step_time anew beside each case")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chip, rows, groups = load_chip(args.chip), [], [[]]
    for word in args.cases:
        groups.append([]) if word == "+" else groups[-1].append(word)
    pace = Pace.of_processor()
    for name, *files in groups:
        case = CASES[name](files, 0, False)
        now = chip
        if args.again:
            alone = chip.vary({"components.gpu.in_step_time": 1})
            now = chip.vary({"components.gpu.in_step_time": in_step_ratio(alone, pace)})
        steps = traced_steps(case.model, case.loss, case.batches(0), case.low, 8, ["adamw"] * 2, now)
        told = [PhaseCost.of(simulate(one, None, now, thermal="none")).seconds for one in steps]
        for phase, ours, theirs in zip(("full", "low-rank"), told, measured(case, args.repeats, pace), strict=True):
            rows.append({"case": name, "phase": phase, "foretold_s": ours, "measured_s": theirs})
            print(
                f"{name:8s}{phase:10s}foretold {ours * 1e3:8.1f} ms, measured {theirs * 1e3:8.1f} ms, "
                f"{(ours / theirs - 1) * 100:+.1f} %",
                flush=True,
            )
    if args.json:
        write_json(args.json, rows)


if __name__ == "__main__":
    main()
