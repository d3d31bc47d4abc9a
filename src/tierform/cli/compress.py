"""``tierform compress MODEL --method gptq --format int4-g64z``: a smaller model, and what it costs in quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import InputPath, OutputFolder, console, json_option, print_table, progress
from tierform.files import write_json

if TYPE_CHECKING:
    from tierform.compression.jobs import CompressionReport


METHODS = (
    "rtn, gptq, awq, hadamard, hadamard-gptq, smoothquant, magnitude, wanda, sparsegpt, skip, structured or distill"
)


@click.command("compress")
@click.argument("model")
@click.option("--method", default="gptq", show_default=True, help=f"{METHODS}.")
@click.option("--format", "form", default="float", help="int4-g64z, int8, int3-g128, nf4-64 ...")
@click.option("--density", default="1", help="Share of weights kept (0.5) or a pattern (2:4).")
@click.option("--data", "text", required=True, type=InputPath(), help="Calibration text.")
@click.option("--test", type=InputPath(), help="Text to measure quality on.")
@click.option("--windows", default=32, show_default=True, type=click.IntRange(1), help="Calibration windows.")
@click.option("--test-windows", default=6, show_default=True, type=click.IntRange(1), help="Windows to measure.")
@click.option("--length", default=256, show_default=True, type=click.IntRange(8), help="Tokens of a window.")
@click.option("--skip", default=0, type=click.IntRange(0), help="Sublayers to leave out.")
@click.option("--skip-by", default="cosine", show_default=True, help="Chosen by cosine, loss or exchange.")
@click.option("--ffn", default=1.0, help="structured: share of the FFN's neurons kept.")
@click.option("--heads", default=1.0, help="structured: share of the groups of heads kept.")
@click.option("--layers", default=0, help="distill: layers kept.")
@click.option("--steps", default=100, show_default=True, help="distill: training steps.")
@click.option("--exact", multiple=True, metavar="PATTERN", help="Matrices left as they are.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "output", type=OutputFolder(), help="Folder of the smaller model.")
@json_option
def command(
    model: str, text: Path, test: Path | None, output: Path | None, json_file: Path | None, **options: Any
) -> None:
    """Compress MODEL (a folder, a GGUF file or a fetched model's name) and say what it costs.

    Quality is measured on --test beside the model as it was: perplexity, agreement, divergence, acceptance as a draft.
    """
    from tierform.compression.jobs import CompressionJob, run_job

    job = CompressionJob(
        model=model,
        method=options["method"],
        format=options["form"],
        density=options["density"],
        text=text,
        test=test,
        output=output,
        windows=options["windows"],
        test_windows=options["test_windows"],
        length=options["length"],
        skip=options["skip"],
        skip_by=options["skip_by"],
        ffn=options["ffn"],
        heads=options["heads"],
        layers=options["layers"],
        steps=options["steps"],
        exact=options["exact"],
        seed=options["seed"],
    )
    with progress() as display:
        bar = display.add_task("loading", total=None)
        report = run_job(
            job, lambda what, done, total: display.update(bar, description=what, completed=done, total=total or None)
        )
    _show(report)
    if json_file:
        write_json(json_file, report.to_dict())


def _show(report: CompressionReport) -> None:
    rows = [
        [
            line.name,
            f"{line.quality.perplexity:.2f}",
            "{:.2f} to {:.2f}".format(*line.quality.perplexity_interval),
            "" if line.worse is None else f"{line.worse.mean:+.3f} ±{line.worse.half_width:.3f}",
            *(
                "" if one is None else f"{scale * one.mean:.{digits}f} ±{scale * one.half_width:.{digits}f}"
                for one, scale, digits in (
                    (line.quality.agreement, 100, 1),
                    (line.quality.divergence, 1, 3),
                    (line.quality.acceptance, 1, 3),
                )
            ),
        ]
        for line in report.lines
    ]
    if rows:
        head = ["", "perplexity", "95 %", "nats lost", "same first, %", "divergence", "acceptance"]
        print_table(f"{report.test_windows} windows of {report.length} tokens", head, rows)
    out = console()
    plan = report.plan
    out.print(
        f"{plan.method}: {plan.bits_per_weight:.2f} bits a weight in {len(plan.matrices)} matrices, "
        f"{plan.size_B / 1e6:.1f} MB in all (float16: {report.before_B / 1e6:.1f} MB).",
        highlight=False,
    )
    if plan.skipped:
        out.print(f"left out: {', '.join(plan.skipped)}", highlight=False, markup=False)
    if report.folder is not None:
        out.print(str(report.folder), highlight=False, markup=False, soft_wrap=True)
