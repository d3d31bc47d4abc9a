"""Timings of the plane store: kernels in memory, warm reads, cold loads beside safetensors, and the HTTP server.

Run as a script: ``python benchmarks/store.py [megabytes of model]``.  It makes a bf16 model of Gaussian weights in a
temporary folder, packs it, and prints one table.  Medians; the note has the range.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tierform.store import PackOptions, pack_model
from tierform.store import open as open_store
from tierform.store.bench import Timing, cold_loads, first_touch, gaussian_bf16, kernels, reads
from tierform.store.safetensors_file import build_header
from tierform.store.server import StoreServer


def make_model(folder: Path, megabytes: int) -> Path:
    """A safetensors file of 64 MiB bf16 matrices."""
    count = max(1, megabytes // 64)
    codes = gaussian_bf16(2**25)
    header, _ = build_header((f"layers.{i}.weight", "BF16", (4096, 8192), codes.nbytes) for i in range(count))
    with (folder / "model.safetensors").open("wb") as out:
        out.write(header)
        for number in range(count):
            out.write(np.roll(codes, number).tobytes())
    return folder


def packing(model: Path, folder: Path) -> list[Timing]:
    """Packing from file to file, uncompressed and with zstd."""
    rows = []
    size = sum(one.stat().st_size for one in model.glob("*.safetensors"))
    for codec in ("none", "zstd"):
        begin, used = time.perf_counter(), time.process_time()
        path = folder / f"{codec}.tfs"
        pack_model(model, path, PackOptions(codec=codec))  # type: ignore[arg-type]
        wall, cpu = time.perf_counter() - begin, (time.process_time() - used) / 2
        note = f"store is {100 * path.stat().st_size / size:.1f} % of the model"
        rows.append(Timing(f"pack file to file, {codec}", "GB/s of weights", size / wall / 1e9, size / cpu / 1e9, note))
    return rows


def serving(path: Path, clients: int = 8, requests: int = 25) -> list[Timing]:
    """Ranges of 1 MiB by several clients on loopback."""
    with open_store(path) as store, StoreServer(store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        size = server.window("values", 8).size
        failed = []

        def client(seed: int) -> None:
            rng = np.random.default_rng(seed)
            connection = http.client.HTTPConnection(*server.server_address[:2])
            for _ in range(requests):
                start = int(rng.integers(0, size - 2**20))
                connection.request(
                    "GET", "/bits-8/model.safetensors", headers={"Range": f"bytes={start}-{start + 2**20 - 1}"}
                )
                answer = connection.getresponse()
                if answer.status != 206 or len(answer.read()) != 2**20:
                    failed.append(answer.status)

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - begin
        server.shutdown()
    note = f"{clients} clients, {clients * requests} ranges of 1 MiB at 8 bits, {len(failed)} failed"
    return [Timing("HTTP ranges, loopback", "GB/s of weights", clients * requests * 2**20 / wall / 1e9, 0.0, note)]


def main(megabytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        model.mkdir()
        make_model(model, megabytes)
        rows = kernels() + first_touch() + packing(model, folder)
        rows += reads(folder / "none.tfs", [16, 8, 4])
        rows += cold_loads(folder / "none.tfs", model, [4, 8, 16])
        rows += serving(folder / "none.tfs")
    print(f"{'what':36} {'quantity':22} {'wall':>8} {'CPU/2':>8}  note")
    for row in rows:
        cpu = f"{row.cpu:8.2f}" if row.cpu else " " * 8
        print(f"{row.what:36} {row.quantity:22} {row.wall:8.3f} {cpu}  {row.note}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
