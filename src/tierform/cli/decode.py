"""``tierform decode MODEL --draft planes:9 --prompts FILE``: real decoding with drafts, predicted and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierform.cli.output import InputPath, console, json_option, print_pairs, print_table, print_text, progress
from tierform.errors import Problem, TierformError
from tierform.files import write_json
from tierform.units import whole_number

if TYPE_CHECKING:
    from tierform.decoding.jobs import DecodeReport


@click.command("decode")
@click.argument("model")
@click.option("--draft", default="", help="planes:9, skip:21-29, model:NAME or lookup.")
@click.option("--tokens", default="auto", show_default=True, help="Tokens drafted in a step: a number, or the best.")
@click.option("--prompts", type=InputPath(), help="A text file of prompts, one on each line.")
@click.option("--new", default=64, show_default=True, type=click.IntRange(2), help="Tokens to generate for each.")
@click.option("--temperature", default=0.0, show_default=True, help="0 takes the most likely token.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="One is timed by processor time.")
@click.option("--policy", help="What the KV cache keeps, measured on --test: window:1024+sinks:4, budget:512.")
@click.option("--cache-bits", default=0, type=click.IntRange(0, 8), help="A cache of so many bits, keys by channel.")
@click.option("--test", type=InputPath(), help="Text on which policy and cache are measured as perplexity.")
@click.option("--learn", type=InputPath(), help="Text on which heads that keep every token (whole:0.4) are chosen.")
@click.option("--windows", default=4, show_default=True, type=click.IntRange(1), help="Windows of that text.")
@click.option("--length", default=512, show_default=True, type=click.IntRange(8), help="Tokens of a window.")
@json_option
def command(
    model: str,
    draft: str,
    tokens: str,
    prompts: Path | None,
    new: int,
    temperature: float,
    seed: int,
    threads: int,
    policy: str | None,
    cache_bits: int,
    test: Path | None,
    learn: Path | None,
    windows: int,
    length: int,
    json_file: Path | None,
) -> None:
    """Decode with MODEL (a folder, a GGUF file or a fetched model's name), with drafts that change nothing in the text.

    Prints tokens a second with and without drafts, predicted and measured, and how many drafts were accepted.
    """
    from tierform.cli.technique_options import read_policy
    from tierform.decoding.jobs import DecodeJob, run_decode
    from tierform.workload.kv_policy import KVPolicy

    problems: list[Problem] = []
    kept = None
    if policy:
        try:
            kept = KVPolicy(**read_policy(policy))
        except TierformError as error:
            problems += error.problems
    number = None
    if tokens != "auto":
        number = whole_number(tokens)
        if number is None or not 1 <= number <= 64:
            problems.append(Problem("auto, or a number from 1 to 64, is needed", key="--tokens", value=tokens))
    job = DecodeJob(
        model=model,
        draft=draft,
        tokens=number,
        prompts=prompts,
        new=new,
        temperature=temperature,
        seed=seed,
        threads=threads,
        policy=kept,
        cache_bits=cache_bits,
        test=test,
        learn=learn,
        windows=windows,
        length=length,
    )
    problems += [one for one in job.problems() if not (policy and kept is None and one.key == "--test")]
    if problems:
        raise TierformError(problems)
    with progress() as display:
        bar = display.add_task("loading", total=None)
        report = run_decode(
            job, lambda what, done, total: display.update(bar, description=what, completed=done, total=total or None)
        )
    _show(report)
    if json_file:
        write_json(json_file, report.to_dict())


def _show(report: DecodeReport) -> None:
    if report.perplexities:
        whole = report.perplexities["whole cache"]
        rows = [[name, f"{one:.2f}", f"{100 * (one / whole - 1):+.1f} %"] for name, one in report.perplexities.items()]
        print_table("perplexity", ["keys and values", "perplexity", "against whole"], rows)
    if not report.generated:
        return
    if report.draft:
        same = {None: "drawn at random", True: "equal", False: "differs (ties within rounding)"}[report.equal]
        figures = [
            ("draft", f"{report.draft}, {report.tokens} tokens"),
            ("with drafts", f"{report.drafted_per_s:.3g} token/s"),
            ("plain", f"{report.plain_per_s:.3g} token/s"),
            ("speed-up", f"{report.speedup:.2f}"),
            ("predicted", f"{report.predicted_per_s:.3g} token/s" if report.predicted_per_s else "not asked for"),
            ("text", same),
        ]
        print_pairs(figures)
        console().print()
        counted = ", ".join(f"{one:.2f}" for one in report.counted) or "none drafted"
        print_text(f"accepted by position: {counted}")
        if report.predicted:
            print_text(f"predicted from logits: {', '.join(f'{one:.2f}' for one in report.predicted)}")
            tried = ", ".join(f"{count}: {rate:.3g}" for count, rate in report.by_tokens.items())
            print_text(f"predicted token/s by drafted tokens: {tried}")
    else:
        print_pairs([("decoding", f"{report.plain_per_s:.3g} token/s"), ("tokens", f"{report.generated}")])
    for text in report.texts[:3]:
        print_text(f"… {text.strip()}", indent=2)
