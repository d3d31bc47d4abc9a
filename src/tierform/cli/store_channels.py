"""``tierform store nest|speed``: nested integers, channel by channel, and what decoding from them takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tierform.cli.output import InputPath, OutputFile, console, json_option, print_table, progress
from tierform.errors import fail
from tierform.files import write_json


@click.command("nest")
@click.argument("model")
@click.option("-o", "output", type=OutputFile(), required=True, help="The store to write.")
@click.option("--group", default=64, show_default=True, type=click.IntRange(8, 4096), help="Inputs to a scale.")
@json_option
def nest(model: str, output: Path, group: int, json_file: Path | None) -> None:
    """Pack MODEL (a folder, a GGUF file or a fetched model's name) as nested integers, channel by channel.

    Matrices of the layers become 8 planes with scales by group; embedding, head and normalizations stay exact.
    """
    from tierform.store.channel_file import pack_channels

    with progress() as bar:
        task = bar.add_task("reading", total=None)
        found = pack_channels(model, output, group=group, progress=lambda name: bar.update(task, description=name))
    weights = sum(outputs * inputs for outputs, inputs in found["matrices"].values())
    console().print(
        f"{output}: {output.stat().st_size:,} bytes; {len(found['matrices'])} matrices of {weights:,} weights "
        f"channel by channel, groups of {group}.",
        highlight=False,
    )
    if json_file:
        row = {"store": str(output), "store_B": output.stat().st_size, "matrices": len(found["matrices"])}
        write_json(json_file, {"schema": "tierform.store-nest/1", **row, "weights": weights})


@click.command("speed")
@click.argument("store", type=InputPath())
@click.option("--planes", "text", default="8,3", show_default=True, help="Average planes to decode at.")
@click.option("--tokens", default=24, show_default=True, type=click.IntRange(2, 10000), help="Tokens to decode.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 256))
@click.option("--prompt", default="The tower is", show_default=True)
@json_option
def speed(store: Path, text: str, tokens: int, threads: int, prompt: str, json_file: Path | None) -> None:
    """Decode from STORE at several average depths, and time it: below 8 planes each token decides by channel."""
    import tempfile

    import transformers

    from tierform.store.channel_decoding import greedy, open_plane_model
    from tierform.store.reader import Store

    try:
        wanted = [float(one) for one in text.split(",")]
    except ValueError:
        fail("a list of numbers is needed", key="--planes", value=text, fix="For example 8,4,3.")
    opened = open_plane_model(store, threads=threads)
    with Store(store) as file, tempfile.TemporaryDirectory() as folder:
        for name in file.attachments:
            (Path(folder) / name).write_bytes(file.attachment(name))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = tokenizer(prompt)["input_ids"]
    rows: list[dict[str, Any]] = []
    for planes in wanted:
        reads = opened.at(planes, dynamic=planes < 8)
        found, seconds = greedy(opened.model, ids, tokens)
        rows.append(
            {
                "planes": planes,
                "token_s": seconds,
                "product_share": reads.product_s / (reads.product_s + reads.rule_s),
                "planes_B_per_s": reads.planes_B / reads.product_s,
                "read_share": reads.planes_B / reads.whole_B,
                "text": tokenizer.decode(found),
            }
        )
    table = [
        [
            f"{row['planes']:g}",
            f"{1e3 * row['token_s']:.1f} ms",
            f"{100 * row['read_share']:.1f} %",
            f"{row['planes_B_per_s'] / 1e9:.2f} GB/s",
            str(row["text"])[:60],
        ]
        for row in rows
    ]
    print_table(f"{store}, {threads} threads", ["planes", "a token", "bytes read", "from planes", "text"], table)
    if json_file:
        write_json(json_file, {"schema": "tierform.store-speed/1", "threads": threads, "rows": rows})
