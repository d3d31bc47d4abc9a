"""Does ``tierform store`` do its verbs, and say a user's mistake in a line?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tierform.cli.main import main


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(one) for one in arguments])
    return int(left.value.code or 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = tmp_path / "model"
    folder.mkdir()
    rng = np.random.default_rng(0)
    tensors = {"w": rng.standard_normal((64, 640)).astype(np.float16), "q": rng.integers(-8, 8, 700, dtype=np.int8)}
    safetensors.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def test_pack_info_verify_unpack(model: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "m.tfs"
    assert run("store", "pack", model, "-o", path, "--int4", "q", "--json", tmp_path / "pack.json") == 0
    assert json.loads((tmp_path / "pack.json").read_text())["weights_B"] == 64 * 640 * 2 + 700
    assert run("store", "info", path, "--json", tmp_path / "info.json") == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "info.json").read_text())["tensors"]}
    assert rows["q"]["element"] == "int4" and rows["w"]["planes"] == 16
    assert run("store", "verify", path) == 0
    assert "whole" in capsys.readouterr().out
    assert run("store", "unpack", path, "-o", tmp_path / "out") == 0
    assert run("store", "unpack", path, "-o", tmp_path / "low", "--bits", 7, "--fill", "truncate") == 0
    safetensors = pytest.importorskip("safetensors.numpy")
    first, second = (safetensors.load_file(one / "model.safetensors") for one in (model, tmp_path / "out"))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    low = safetensors.load_file(tmp_path / "low" / "model.safetensors")
    assert (low["w"].view(np.uint16) == first["w"].view(np.uint16) & 0xFE00).all()
    assert run("store", "unpack", path, "-o", tmp_path / "out") == 2  # nothing is replaced


def test_mistakes_are_lines_and_exit_code_two(model: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "m.tfs"
    assert run("store", "pack", tmp_path / "none", "-o", path) == 2
    assert run("store", "pack", model, "-o", path, "--int4", "w") == 2
    assert run("store", "pack", model, "-o", path, "--layout", "adjacent", "--compress", "zstd") == 2
    assert not path.exists()
    run("store", "pack", model, "-o", path)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert run("store", "verify", path) == 2
    message = capsys.readouterr().err
    assert "error:" in message and "byte" in message and "Traceback" not in message
    assert run("store", "info", model / "config.json") == 2
    assert run("store", "bench", "--bits", "x") == 2


def test_serve_until_interrupted(small_store: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "tierform", "store", "serve", str(small_store), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a shell's background
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[0]
        with urllib.request.urlopen(url + "bits-6/model.safetensors", timeout=60) as answer:
            assert len(answer.read()) > 150 * 512 * 2
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 130
        assert "Traceback" not in (server.stderr.read() if server.stderr else "")


def test_a_killed_pack_leaves_the_old_file(tmp_path: Path, small_store: Path) -> None:
    """A process that dies in the middle (as at a power cut) leaves the old file or the new one, never a part."""
    before = small_store.read_bytes()
    script = (
        "import os, sys, numpy as np, tierform.store as s\n"
        "def parts():\n"
        "    for i in range(9):\n"
        "        if i == 5: os.kill(os.getpid(), 9)\n"
        "        yield f't{i}', np.zeros(40000, np.float16)\n"
        f"s.pack_tensors(parts(), {str(small_store)!r})\n"
    )
    died = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert died.returncode == -9
    assert small_store.read_bytes() == before
    import tierform.store as store

    with store.open(small_store) as opened:
        opened.verify()


def test_bench_reports_every_line(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, out = tmp_path / "m.tfs", tmp_path / "bench.json"
    run("store", "pack", model, "-o", path)
    assert run("store", "bench", path, "--model", model, "--megabytes", 16, "--bits", "4,16", "--json", out) == 0
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    assert {
        "copy (NumPy)",
        "pack 16 planes",
        "unpack 4 planes",
        "warm read, 4 bits",
        "warm read, 16 bits",
        "first touch of memory",
    } <= set(rows)
    assert all(row["wall"] >= 0 for row in rows.values())
