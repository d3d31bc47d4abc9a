"""``tierform fit MODEL --chip CHIP --gpus N``: does it fit, the largest batch, the cheapest method and split."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import (
    SCREEN,
    console,
    json_option,
    one_thread,
    print_lines,
    print_pairs,
    print_table,
    print_text,
    progress,
)
from tierform.cli.task_options import METHODS, OPTIMIZERS
from tierform.collector import no_collection
from tierform.errors import Problem, TierformError, nearest

if TYPE_CHECKING:
    from tierform.simulation.fit_answer import FitAnswer, FitFound
    from tierform.workload import Task

TASKS = ("inference", "finetune", "train")
_LISTED = 40  # timed ways that --detail shows
_GIVEN = ("rank", "optimizer", "decode", "kv_cache", "host")
_HEAD = ("method", "split", "recompute", "offload", "memory", "time", "energy", "most")
# What belongs to one kind of task alone.
_OF_TRAINING = ("method", "rank", "optimizer", "recomputation")
_OF_INFERENCE = ("decode", "weights", "kv_cache")


@click.command("fit")
@click.argument("model")
@click.option("--chip", required=True, help="A chip of the library or a YAML file.")
@click.option("--gpus", type=int, default=1, show_default=True, help="How many of these chips; all of them work.")
@click.option("--task", type=click.Choice(TASKS), default="finetune", show_default=True)
@click.option("--objective", default="time", show_default=True, help="What is made least: time or energy.")
@click.option("--method", help="Methods to try, separated by commas.  [default: full,lora,qlora; train: full]")
@click.option("--batch", type=int, help="Sequences of a step, of all chips together.  [default: one for each chip]")
@click.option("--sequence", type=int, default=512, show_default=True, help="Tokens of a prompt or sample.")
@click.option("--rank", type=int, help="Rank of LoRA and its kin.  [default: each method's own]")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="Of training.  [default: adamw]")
@click.option("--decode", type=int, help="Tokens to generate, of inference.  [default: 0]")
@click.option("--weights", help="Format of the weights, of inference.  [default: the chip's own, bf16, int8 and int4]")
@click.option("--kv-cache", help="Format of the KV cache, of inference.  [default: the chip's own]")
@click.option("--parallel", help="Only this split: tensor=4,data=2,zero=1; or a YAML file.  [default: all]")
@click.option("--recomputation", help="Only these: none,selective,full, or one with its layers.  [default: all]")
@click.option("--offload", help="Only this: none, or parts such as paged-optimizer,activations.  [default: all]")
@click.option("--host", help="The host's memory: pcie5-dram, pcie4-dram, nvme.  [default: pcie5-dram]")
@click.option("--runtime", default="ideal", show_default=True, help="What the software adds: a name, or a file.")
@click.option("--detail", is_flag=True, help="Print the timed ways, and why others were not timed.")
@json_option
def command(json_file: Path | None, detail: bool, **given: Any) -> None:
    """Does MODEL's task fit on so many chips, in what way is it cheapest, and how large may its batch be?

    Every method, split, recomputation and offload is tried; what is given is not varied.  Each way costs what `tierform
    simulate` says without heat (--thermal none).
    """
    one_thread()
    asked = _asked(given)
    from tierform.files import write_json
    from tierform.simulation.fit import fit

    with _watched() as tell, no_collection():
        found = fit(tell=tell, **asked)
    if json_file:
        write_json(json_file, found.content())
    _show(found, asked["task"], given, detail)
    if json_file:
        console().print(f"figures: {json_file}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _watched() -> Iterator[Callable[[int, int], None]]:
    with progress() as shown:
        line = shown.add_task("ways", total=None)
        yield lambda done, total: shown.update(line, completed=done, total=total)


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the search; TierformError with every mistake of the options."""
    from tierform.chip.description import load_chip
    from tierform.simulation.fit_answer import OBJECTIVES
    from tierform.workload import load_model
    from tierform.workload.split_text import read_parallel

    problems: list[Problem] = []

    def attempt(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except TierformError as error:
            problems.extend(error.problems)
            return None

    training = given["task"] != "inference"
    for name in _OF_INFERENCE if training else _OF_TRAINING:
        if given[name] is not None:
            what = f"has no meaning for {'training' if training else 'inference'}"
            problems.append(Problem(what, key=_option(name), value=given[name]))
    if given["objective"] not in OBJECTIVES:
        near = nearest(given["objective"], OBJECTIVES)
        fix = f"Choose one of {', '.join(OBJECTIVES)}."
        what = "not a known choice"
        problems.append(Problem(what, key="--objective", value=given["objective"], nearest=near, fix=fix))
    if not 1 <= given["gpus"] <= 4096:
        problems.append(Problem("must be a whole number from 1 to 4096", key="--gpus", value=given["gpus"]))
    model = attempt(lambda: load_model(given["model"]))
    chip = attempt(lambda: load_chip(given["chip"]))
    methods = attempt(lambda: _methods(given)) if training else None
    task = attempt(lambda: _task(given, chip))
    split = attempt(lambda: read_parallel(given["parallel"])) if given["parallel"] else None
    if split is not None and split.chips != given["gpus"]:
        what = f"the split is over {split.chips} chips, and there are {given['gpus']}"
        fix = f"Give --gpus {split.chips}, or another split."
        problems.append(Problem(what, key="--parallel", value=given["parallel"], fix=fix))
    kinds = attempt(lambda: _recomputations(given["recomputation"])) if training else None
    away = attempt(lambda: _offloads(given["offload"], training))
    if problems:
        raise TierformError(dict.fromkeys(problems))
    return {
        "model": model,
        "task": task,
        "chip": chip,
        "gpus": given["gpus"],
        "methods": methods,
        "recomputations": kinds,
        "offloads": away,
        "parallelism": split,
        "runtime": given["runtime"],
        "objective": given["objective"],
    }


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _task(given: dict[str, Any], chip: Any) -> Task:
    from dataclasses import replace

    from tierform.simulation.choose import task_on
    from tierform.workload.precision import bits
    from tierform.workload.task import FineTuning, Inference, Training, resolved_precision

    batch = max(1, given["gpus"]) if given["batch"] is None else given["batch"]
    host = {"host": given["host"]} if given["host"] else {}
    if given["host"]:
        from tierform.simulation.offload import load_host

        load_host(given["host"])
    if given["task"] != "inference":
        kind = Training if given["task"] == "train" else FineTuning
        return kind(batch=batch, sequence=given["sequence"], optimizer=given["optimizer"] or "adamw", **host)
    task = Inference(batch=batch, sequence=given["sequence"], decode=given["decode"] or 0, **host)
    if not (given["weights"] or given["kv_cache"]):
        return task
    plan = resolved_precision(task if chip is None else task_on(task, chip))
    if given["weights"]:
        plan = plan.with_weights(given["weights"])
    if given["kv_cache"]:
        bits(given["kv_cache"])
        plan = replace(plan, kv_cache=given["kv_cache"])
    return replace(task, precision=plan)


def _methods(given: dict[str, Any]) -> list[Any] | None:
    """The methods that are named, each with the rank where it has one."""
    from tierform.workload.task import METHODS as KINDS
    from tierform.workload.task import RANKED

    if given["method"] is None and (given["rank"] is None or given["task"] == "train"):
        if given["rank"] is not None:
            raise TierformError([Problem("has no meaning for full training", key="--rank", value=given["rank"])])
        return None
    names = _words(given["method"] or "full,lora,qlora")
    fix = f"Choose of {', '.join(METHODS)}."
    problems = [
        Problem("not a known method", key="--method", value=name, nearest=nearest(name, METHODS), fix=fix)
        for name in names
        if name not in METHODS
    ]
    ranked = [name for name in names if name in RANKED]
    if given["rank"] is not None and not ranked and not problems:
        problems.append(Problem("none of these methods has a rank", key="--rank", value=given["rank"]))
    if not names:
        problems.append(Problem("at least one method is needed", key="--method", value=given["method"], fix=fix))
    if problems:
        raise TierformError(problems)
    return [KINDS[name](rank=given["rank"]) if name in ranked and given["rank"] else KINDS[name]() for name in names]


def _recomputations(text: str | None) -> tuple[str, ...] | None:
    """``none,full`` are two to try; ``full:12`` and ``full:0,4-7`` are one with its layers."""
    from tierform.workload.recomputation import RECOMPUTATIONS, recomputation_problems

    if text is None:
        return None
    words = [text.strip()] if ":" in text else _words(text)
    problems = [problem for word in words or [""] for problem in recomputation_problems(word)]
    if problems:
        raise TierformError(problems)
    order = [word.partition(":")[0] for word in words]
    return tuple(sorted(words, key=lambda word: RECOMPUTATIONS.index(order[words.index(word)])))


def _offloads(text: str | None, training: bool) -> list[tuple[str, ...]] | None:
    from tierform.workload.offloaded import OF_INFERENCE, OF_TRAINING, offload_problems

    if text is None:
        return None
    if text.strip() == "none":
        return [()]
    chosen = tuple(_words(text))
    problems = offload_problems(chosen, OF_TRAINING if training else OF_INFERENCE)
    if problems:
        raise TierformError(problems)
    return [chosen]


# -- for people --------------------------------------------------------------------------------------------------
def _show(found: FitAnswer, task: Task, given: dict[str, Any], detail: bool) -> None:
    kind = {"finetune": "fine-tuning", "train": "training"}.get(given["task"], "inference")
    title = f"{found.model} on {found.gpus} x {found.chip}: {kind}, batch {task.batch}, sequence {task.sequence}"
    if given["decode"]:
        title += f", {given['decode']} tokens generated"
    with console().capture() as answered:
        print_text(f"{title} (runtime {found.runtime})", style="bold")
        if found.best is None:
            _show_closest(found)
        else:
            _show_best(found, found.best, given)
    text = answered.get()
    console().file.write(text)
    lines = [f"{name}: no way; {reason}" for name, reason in found.without.items()] if found.best else []
    lines += [f"{number} ways: {reason}" for reason, number in found.pruned.items()]
    end = f"{found.ways} ways, {len(found.timed)} timed." + ("" if detail else "  The timed ones: --detail.")
    print_lines(lines, end, SCREEN - text.count("\n"), "All {} reasons: there.", whole=detail)
    if detail and found.timed:
        rows = [(one.way.method, *_row(one)[1:-1]) for one in found.timed[:_LISTED]]
        print_table(f"The cheapest {len(rows)} of {len(found.timed)} timed ways", _HEAD[:-1], rows, left=4)


def _show_best(found: FitAnswer, best: FitFound, given: dict[str, Any]) -> None:
    """The cheapest way, its memory by part, and the best way of each method."""
    from tierform.units import format_quantity

    print_text(f"It fits. Least {found.objective}: {_way(best)}.")
    figures = [("time", format_quantity(best.latency_s, "s")), ("energy", format_quantity(best.energy_J, "J"))]
    if best.tokens_per_s:
        figures.append(("rate", format_quantity(best.tokens_per_s, "token/s")))
    figures.append(("largest batch so", _most(best)))
    print_pairs(figures)
    share = best.chip_B / found.capacity_B
    held = f"{format_quantity(best.chip_B, 'B')} of {format_quantity(found.capacity_B, 'B')} ({share:.0%})"
    print_text(f"memory of a chip: {held}: {_parts(best)}", indent=2)
    print_table("The best way of each method", _HEAD, [_row(one) for one in found.methods], left=4)
    print_text(f"As a simulation: {_command(best, given)}", indent=2)


def _show_closest(found: FitAnswer) -> None:
    """What lacks least, where nothing fits."""
    from tierform.units import format_quantity

    if found.closest is None:
        print_text("It cannot be done on these chips in any way; the reasons:")
        return
    way, parts, missing = found.closest
    told = f"{way.method}, {way.split or 'one chip'}, recomputation {way.recomputation}"
    told += f", offload {'+'.join(way.offload)}" if way.offload else ""
    print_text(
        f"It does not fit in any way; {format_quantity(missing, 'B')} a chip are missing in the closest: {told}."
    )
    shown = ", ".join(f"{part} {format_quantity(size, 'B')}" for part, size in parts.items() if size)
    print_text(f"memory that a chip needs: {shown}; it has {format_quantity(found.capacity_B, 'B')}", indent=2)
    console().print()


def _way(found: FitFound) -> str:
    way = found.way
    parts = [way.method, way.split or "one chip"]
    plural = "es" if way.micro_batches != 1 else ""
    parts += [f"{way.micro_batches} micro-batch{plural}"] if way.micro_batches else []
    parts += [f"recomputation {way.recomputation}"] if way.recomputation != "none" else []
    parts += [f"offload {'+'.join(way.offload)}"] if way.offload else []
    return ", ".join(parts)


def _parts(found: FitFound) -> str:
    """The bytes of each part, and where they wait if not on the chip."""
    from tierform.simulation.offload import load_host
    from tierform.units import format_quantity

    host = load_host(found.way.task.host).name if found.way.offload else ""  # type: ignore[union-attr]
    places = dict.fromkeys(name for held in found.placed_B.values() for name in held if name != host)
    nearest_place = next(iter(places), "")
    told = []
    for part, held in found.placed_B.items():
        for name, size in held.items():
            if size:
                where = "" if name == nearest_place else f" in {name}"
                told.append(f"{part.replace('_', ' ')} {format_quantity(size, 'B')}{where}")
    return ", ".join(told)


def _row(found: FitFound) -> tuple[str, ...]:
    from tierform.units import format_quantity

    way = found.way
    micro = f" mb={way.micro_batches}" if way.micro_batches else ""
    return (
        way.method,
        f"{way.split or '-'}{micro}",
        way.recomputation,
        "+".join(way.offload) or "-",
        format_quantity(found.chip_B, "B"),
        format_quantity(found.latency_s, "s"),
        format_quantity(found.energy_J, "J"),
        _most(found),
    )


def _most(found: FitFound) -> str:
    from tierform.simulation.ways import MOST_BATCH

    most = found.most_batch or 0
    return f"{most} or more" if most + found.way.parallelism.data > MOST_BATCH else str(most)


def _command(found: FitFound, given: dict[str, Any]) -> str:
    """The same way as a ``tierform simulate`` command."""
    way = found.way
    words = ["tierform", "simulate", given["model"], "--chip", given["chip"], "--task", given["task"]]
    words += ["--batch", str(way.task.batch), "--sequence", str(given["sequence"]), "--thermal", "none"]
    words += ["--weights", given["weights"] or way.method] if given["task"] == "inference" else ["--method", way.method]
    from tierform.workload.task import RANKED, FineTuning

    ranked = isinstance(way.task, FineTuning) and way.method in RANKED
    for name in _GIVEN:
        if given[name] is not None and (name != "rank" or ranked):
            words += [_option(name), str(given[name])]
    words += ["--parallel", way.split] if way.split else []
    words += ["--micro-batches", str(way.micro_batches)] if way.micro_batches else []
    words += ["--recomputation", way.recomputation] if way.recomputation != "none" else []
    words += ["--offload", ",".join(way.offload)] if way.offload else []
    words += ["--runtime", given["runtime"]] if given["runtime"] != "ideal" else []
    return shlex.join(words)
