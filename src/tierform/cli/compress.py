"""``tierform compress MODEL --method gptq --format int4-g64z``: a smaller model, and what it costs in quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import InputPath, OutputFolder, console, json_option, print_table, progress
from tierform.errors import fail
from tierform.files import write_json

if TYPE_CHECKING:
    from tierform.compression.jobs import CompressionJob, CompressionReport
    from tierform.compression.target_job import TargetReport

CHOSEN_FROM = "int3-g128,int4-g128,int5-g128,int6-g128,int8-g128,float"
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
@click.option("--target", help="Least loss within latency=0.7, energy=0.5, bytes=60MB or bits=4.2.")
@click.option("--chip", help="target: the chip that is predicted.")
@click.option("--runtime", default="ideal", show_default=True, help="target: the chip's software.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="target: sequences of a step.")
@click.option("--context", default=128, show_default=True, type=click.IntRange(1), help="target: tokens before.")
@click.option("--formats", default=CHOSEN_FROM, show_default=True, help="target: what matrices may have.")
@click.option("--against", default="int4-g128", show_default=True, help="target: compared with (FORMAT/HEAD), or none.")
@click.option("--leave-out", is_flag=True, help="target: leave sublayers out, too, where formats alone miss it.")
@click.option("--measure", is_flag=True, help="target: time the products from planes on this machine.")
@click.option("-o", "output", type=OutputFolder(), help="Folder of the smaller model.")
@json_option
def command(
    model: str, text: Path, test: Path | None, output: Path | None, json_file: Path | None, **options: Any
) -> None:
    """Compress MODEL (a folder, a GGUF file or a fetched model's name) and say what it costs.

    Quality is measured on --test beside the model as it was: perplexity, agreement, divergence, acceptance as a draft.
    """
    from tierform.compression.jobs import CompressionJob, run_job

    target = {key: options.pop(key) for key in ("target", "chip", "runtime", "batch", "context", "formats", "against")}
    measure, leave_out = options.pop("measure"), options.pop("leave_out")
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
    if target["target"] is not None:
        found = _run_target(job, target, leave_out)
        content = found.to_dict()
        if measure:
            content["measured"] = _measure(found)
        if json_file:
            write_json(json_file, content)
        return
    if leave_out:
        fail("sublayers are left out for a target", key="--leave-out", fix="Give --target latency=0.7, or --skip.")
    if measure:
        fail("products are measured with a target", key="--measure", fix="Give --target latency=0.7.")
    if target["chip"] is not None:
        fail("a chip is predicted with a target", key="--chip", value=target["chip"], fix="Give --target latency=0.7.")
    with progress() as display:
        bar = display.add_task("loading", total=None)
        report = run_job(
            job, lambda what, done, total: display.update(bar, description=what, completed=done, total=total or None)
        )
    _show(report)
    if json_file:
        write_json(json_file, report.to_dict())


def _run_target(job: CompressionJob, given: dict[str, Any], leave_out: bool) -> TargetReport:
    from tierform.compression.target_job import TargetJob, run_target

    formats = tuple(text.strip() for text in given["formats"].split(",") if text.strip())
    against = "" if given["against"] == "none" else given["against"]
    if given["chip"] is None:
        fail("a target is predicted on a chip", key="--chip", fix="For example --chip a100.")
    asked = TargetJob(
        job,
        given["target"],
        given["chip"],
        runtime=given["runtime"],
        batch=given["batch"],
        context=given["context"],
        formats=formats,
        against=against,
        leave_out=leave_out,
    )
    with progress() as display:
        bar = display.add_task("loading", total=None)
        report = run_target(
            asked, lambda what, done, total: display.update(bar, description=what, completed=done, total=total or None)
        )
    _show_target(report)
    return report


def _measure(report: TargetReport) -> dict[str, object]:
    """Time the products of the models in integers on this machine, beside what was predicted of them."""
    from tierform.chip.gpu.measure import load_of_machine
    from tierform.store.nested import PLANES
    from tierform.store.plane_speed import GROUP, PlaneProduct, products_s

    rows, found = [], {}
    before = load_of_machine()
    for one in report.models[1:]:
        forms = [(matrix.shape, matrix.format) for matrix in one.plan.matrices.values()]
        if any(form.kind != "int" or form.bits > PLANES for _, form in forms):
            console().print(f"{one.name} has matrices that are not integers: its products are not timed.")
            continue
        made = [PlaneProduct(*shape, form.bits, form.group or GROUP) for shape, form in forms]
        seconds, predicted = products_s(made), one.prediction.products_s
        found[one.name] = {"products_s": seconds, "predicted_s": predicted}
        rows.append(
            [
                one.name,
                f"{1e3 * seconds:.2f} ms",
                f"{1e3 * predicted:.2f} ms",
                f"{100 * (predicted / seconds - 1):+.1f} %",
            ]
        )
    if rows:
        title = f"products of a token from planes, one thread here, load {before:.1f}"
        print_table(title, ["", "measured", "predicted", "off"], rows)
    return {"load": before, "models": found}


def _show_target(report: TargetReport) -> None:
    asked, first = report.job, report.models[0].prediction
    rows = []
    for one in report.models:
        found, line = one.prediction, one.line
        rows.append(
            [
                one.name,
                f"{found.bits:.2f}",
                f"{found.size_B / 1e6:.1f} MB",
                f"{1e3 * found.latency_s:.3g} ms",
                f"{found.latency_s / first.latency_s:.2f}",
                f"{1e3 * found.energy_J:.3g} mJ",
                "" if line is None else f"{line.quality.perplexity:.2f}",
                "" if line is None or line.worse is None else f"{line.worse.mean:+.3f} ±{line.worse.half_width:.3f}",
            ]
        )
    head = ["", "bits", "bytes", "a step", "share", "energy", "perplexity", "nats lost"]
    title = f"{asked.job.model} on {asked.chip}, {asked.runtime}: batch {asked.batch}, {asked.context} tokens before"
    print_table(title, head, rows)
    counts = ", ".join(f"{count} {form}" for form, count in report.counts().items())
    out = console()
    out.print(f"{asked.job.method}: {counts} of {len(report.chosen.plan.matrices)} matrices.", highlight=False)
    if report.chosen.plan.skipped:
        out.print(f"left out: {', '.join(report.chosen.plan.skipped)}", highlight=False, markup=False)
    if report.folder is not None:
        out.print(str(report.folder), highlight=False, markup=False, soft_wrap=True)


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
