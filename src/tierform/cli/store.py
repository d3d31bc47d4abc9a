"""``tierform store pack|info|verify|unpack|serve|bench``: the bit-plane weight store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierform.cli.output import InputPath, OutputFile, OutputFolder, console, json_option, print_table, progress
from tierform.errors import fail
from tierform.files import write_json

if TYPE_CHECKING:
    from tierform.store.layout import Codec, Layout
    from tierform.store.reader import Fill


_STORE = click.argument("store", type=InputPath())
_FILL = click.option(
    "--fill",
    type=click.Choice(["midpoint", "truncate", "round"]),
    default="midpoint",
    show_default=True,
    help="What stands for the missing bits.",
)


@click.group("store")
def command() -> None:
    """Keep a model's weights as bit planes: any precision is read from one copy."""


@command.command("pack")
@click.argument("model", metavar="MODEL_DIR", type=InputPath())
@click.option("-o", "output", type=OutputFile(), required=True, help="The store to write.")
@click.option("--layout", type=click.Choice(["plane-major", "adjacent"]), default="plane-major", show_default=True)
@click.option("--compress", type=click.Choice(["none", "zstd"]), default="none", show_default=True)
@click.option("--level", type=click.IntRange(1, 22), default=3, show_default=True, help="zstd's level.")
@click.option("--int4", multiple=True, metavar="PATTERN", help="int8 tensors of -8 to 7 to keep as four planes.")
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
@json_option
def pack(
    model: Path,
    output: Path,
    layout: Layout,
    compress: Codec,
    level: int,
    int4: tuple[str, ...],
    threads: int,
    json_file: Path | None,
) -> None:
    """Pack the safetensors files of MODEL_DIR (or one file) into a store."""
    import time

    from tierform.store.safetensors_file import open_model
    from tierform.store.writer import PackOptions, pack_model

    opened = open_model(model)
    total = sum(source.end - source.start for one in opened for source in one.tensors)
    for one in opened:
        one.close()
    options = PackOptions(layout=layout, codec=compress, level=level, threads=threads)
    begin = time.perf_counter()
    with progress() as bar:
        task = bar.add_task("packing", total=total)
        size = pack_model(model, output, options, int4=int4, progress=lambda size: bar.advance(task, size))
    seconds = time.perf_counter() - begin
    console().print(
        f"{output}: {size:,} bytes for {total:,} of weights ({_percent(size, total)}), {seconds:.1f} s", highlight=False
    )
    if json_file:
        row = {"store": str(output), "store_B": size, "weights_B": total, "duration_s": seconds}
        write_json(json_file, {"schema": "tierform.store-pack/1", **row})


@command.command("info")
@_STORE
@json_option
def info(store: Path, json_file: Path | None) -> None:
    """What is in STORE: its tensors, types, layout and sizes."""
    from tierform.store.layout import MAJOR
    from tierform.store.reader import Store

    with Store(store, threads=1) as opened:
        rows = [
            {
                "name": entry.name,
                "element": entry.element.name,
                "shape": list(entry.shape),
                "layout": entry.layout,
                "codec": entry.codec,
                "planes": entry.element.planes,
                "tensor_B": entry.tensor_bytes,
                "stored_B": entry.data_bytes,
                "index_B": entry.row_bytes * entry.element.planes,
            }
            for entry in opened.entries.values()
        ]
        files = {item.name: item.size for item in opened.attachments.values()}
        header = opened.header
    table = [
        [
            str(row["name"]),
            str(row["element"]),
            "x".join(map(str, row["shape"])) or "scalar",  # type: ignore[call-overload]
            f"{row['layout']}, {row['codec']}",
            f"{row['tensor_B']:,}",
            f"{row['stored_B']:,}",
        ]
        for row in rows
    ]
    print_table(str(store), ["tensor", "type", "shape", "layout, codec", "bytes", "stored"], table)
    console().print(
        f"format {MAJOR}.{header.minor}, {header.file_size:,} bytes, {header.tensors} tensors of "
        f"{header.tensor_bytes:,} bytes, attached: {', '.join(files) or 'nothing'}",
        highlight=False,
    )
    if json_file:
        content = {"schema": "tierform.store-info/1", "file_B": header.file_size, "tensors": rows, "files": files}
        write_json(json_file, content)


@command.command("verify")
@_STORE
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
def verify(store: Path, threads: int) -> None:
    """Compare every byte of STORE with its checksums; exit 2 naming the first that is wrong."""
    from tierform.store.reader import Store

    with Store(store, threads=threads) as opened, progress() as bar:
        task = bar.add_task("verifying", total=opened.header.tensor_bytes)
        checks = opened.verify(lambda size: bar.advance(task, size))
    console().print(f"{store}: whole ({checks:,} checksums)", highlight=False)


@command.command("unpack")
@_STORE
@click.option("-o", "output", type=OutputFolder(), required=True, help="A folder.")
@click.option("--bits", type=click.IntRange(1, 64), help="Read at most this many planes; default: all, bit-exact.")
@_FILL
def unpack(store: Path, output: Path, bits: int | None, fill: Fill) -> None:
    """Write STORE as model.safetensors, with the files that were packed with it."""
    from tierform.store.reader import Store
    from tierform.store.unpack import unpack_store

    with Store(store) as opened, progress() as bar:
        task = bar.add_task("unpacking", total=opened.header.tensor_bytes)
        written = unpack_store(opened, output, bits, fill=fill, progress=lambda size: bar.advance(task, size))
    for path in written:
        console().print(str(path), highlight=False, markup=False)


@command.command("serve")
@_STORE
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; loopback unless told.")
@click.option("--port", type=click.IntRange(0, 65535), default=8811, show_default=True, help="0 takes a free one.")
@click.option("--connections", type=click.IntRange(1, 10000), default=64, show_default=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 3600), default=20.0, show_default=True, help="In s.")
@_FILL
def serve(store: Path, host: str, port: int, connections: int, timeout_s: float, fill: Fill) -> None:
    """Serve every precision of STORE as its own safetensors file over HTTP, with ranges; Ctrl-C ends it."""
    from tierform.store.reader import Store
    from tierform.store.server import StoreServer

    with (
        Store(store) as opened,
        StoreServer(opened, host, port, fill=fill, connections=connections, timeout_s=timeout_s) as server,
    ):
        console().print(f"{server.url}/ lists the windows of {store}", highlight=False, markup=False)
        for bits in sorted({min(bits, server.most_bits) for bits in (4, 6, 8, server.most_bits)}):
            console().print(f"  {server.url}/bits-{bits}/model.safetensors", highlight=False, markup=False)
        server.serve_forever()


@command.command("bench")
@click.argument("store", type=InputPath(), required=False)
@click.option("--model", type=InputPath(), help="The safetensors model to compare a cold load with.")
@click.option("--bits", "bit_text", default="4,8,16", show_default=True, help="Precisions to read at.")
@click.option("--megabytes", type=click.IntRange(16, 65536), default=256, show_default=True, help="Kernel test size.")
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
@json_option
def bench(
    store: Path | None, model: Path | None, bit_text: str, megabytes: int, threads: int, json_file: Path | None
) -> None:
    """Time the plane kernels in memory and, given STORE, warm and cold reads of it, the disk beside."""
    from tierform.store import bench as timing

    try:
        wanted = [int(one) for one in bit_text.split(",")]
    except ValueError:
        fail("a list of whole numbers is needed", key="--bits", value=bit_text, fix="For example 4,8,16.")
    if not all(1 <= bits <= 64 for bits in wanted):
        fail("precisions are 1 to 64 bits", key="--bits", value=bit_text)
    if store is None and model is not None:
        fail("--model is compared with a store", fix="Give the store too.")
    if store is not None:  # what cannot be read is told before minutes of timing
        from tierform.store.reader import Store

        with Store(store, threads=1):
            pass
    rows = timing.kernels(megabytes, threads) + timing.first_touch(megabytes, threads)
    if store is not None:
        rows += timing.reads(store, wanted, threads)
        rows += timing.cold_loads(store, model, wanted, threads)
    table = [[row.what, row.quantity, f"{row.wall:.3g}", f"{row.cpu:.3g}" if row.cpu else "", row.note] for row in rows]
    print_table("store timings", ["what", "quantity", "wall", f"CPU time / {threads}", "note"], table, left=2)
    if json_file:
        write_json(json_file, {"schema": "tierform.store-bench/1", "rows": [row.to_dict() for row in rows]})


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "no weights"


def _add_channels() -> None:
    from tierform.cli.store_channels import nest, speed

    command.add_command(nest)
    command.add_command(speed)


_add_channels()
