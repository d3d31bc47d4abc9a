"""Do downloads go on only on the same bytes, are slow clients served, and are links and damaged frames refused?"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tierform.store as store
from tierform.errors import TierformError
from tierform.store.safetensors_file import build_header
from tierform.store.server import StoreServer, parse_range
from tierform.store.writer import pack_model

TIMEOUT_S = 0.5
PATH = "/bits-5/model.safetensors"


@pytest.fixture
def server(small_store: Path) -> Iterator[StoreServer]:
    with store.open(small_store) as opened, StoreServer(opened, timeout_s=TIMEOUT_S) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(server: StoreServer, path: str = PATH, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.headers)


def test_does_an_entity_tag_name_the_bytes(server: StoreServer) -> None:
    tags = {path: ask(server, path)[2]["ETag"] for path in (PATH, "/bits-4/model.safetensors", "/bits-4/config.json")}
    tags["planes"] = ask(server, "/planes-5/model.safetensors")[2]["ETag"]
    assert len(set(tags.values())) == 4
    assert ask(server)[2]["ETag"] == tags[PATH]
    assert ask(server, If_None_Match=tags[PATH])[:2] == (304, b"")
    assert ask(server, If_None_Match=f'"x", W/{tags[PATH]}')[0] == 304
    assert ask(server, If_None_Match='"x"')[0] == 200
    assert ask(server, If_Match=tags[PATH])[0] == 200
    assert ask(server, If_Match='"x"')[0] == 412


def test_does_a_download_go_on_only_on_the_same_bytes(server: StoreServer) -> None:
    _, whole, head = ask(server)
    assert ask(server, Range="bytes=100-", If_Range=head["ETag"])[:2] == (206, whole[100:])
    assert ask(server, Range="bytes=100-", If_Range='"another"')[:2] == (200, whole)
    assert ask(server, Range="bytes=100-", If_Range="Wed, 21 Oct 2015 07:28:00 GMT")[:2] == (200, whole)


def test_is_a_range_of_any_length_clamped() -> None:
    many = "9" * 23
    assert parse_range(f"bytes=0-{many}", 10) == (0, 10, True)
    assert parse_range(f"bytes=-{many}", 10) == (0, 10, True)
    assert parse_range(f"bytes={many}-", 10) is None
    assert parse_range("bytes=" + "0" * 6000 + "3-" + "9" * 6000, 10) == (3, 10, True)
    assert parse_range("bytes=²-5", 10) is None


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: 0, 0\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: identity\r\n",
    ],
)
def test_is_more_than_one_length_refused(server: StoreServer, head: str) -> None:
    with socket.create_connection(server.server_address[:2], timeout=5) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{head}\r\nGET /smuggled HTTP/1.1\r\n\r\n".encode())
        content = b""
        while piece := client.recv(65536):
            content += piece
    assert content.startswith(b"HTTP/1.1 400")
    assert content.count(b"HTTP/1.1") == 1  # the connection ends: nothing behind it is taken for a request


def test_is_a_slow_client_served_and_one_that_stops_cut_off(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "x.tfs"
    store.pack_tensors({"w": rng.standard_normal((1024, 1024)).astype(np.float32)}, path)
    with store.open(path) as opened, StoreServer(opened, timeout_s=TIMEOUT_S) as made:
        made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        sizes = []
        for stops in (False, True):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
            client.settimeout(10)
            client.connect(made.server_address[:2])
            client.sendall(b"GET /bits-32/model.safetensors HTTP/1.1\r\nConnection: close\r\n\r\n")
            begin, size = time.monotonic(), 0
            try:
                while piece := client.recv(128 * 1024):
                    size += len(piece)
                    if time.monotonic() - begin < 4 * TIMEOUT_S:  # as slow as a piece of 4 MiB in four timeouts
                        time.sleep(0.1)
                    if stops and size > 2**20:
                        time.sleep(4 * TIMEOUT_S)
                        stops = False
            except ConnectionResetError:
                pass
            sizes.append(size)
            client.close()
        assert sizes[0] > 4 * 2**20  # the whole of it
        assert sizes[1] < sizes[0]
        made.shutdown()
        thread.join()


def _model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    header, _ = build_header([("a", "F16", (2, 3), 12)])
    (folder / "model.safetensors").write_bytes(header + bytes(range(12)))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_is_a_link_out_of_the_model_s_folder_refused(tmp_path: Path, name: str) -> None:
    folder, secret = _model(tmp_path / "model"), _model(tmp_path / "elsewhere") / name
    (folder / name).unlink()
    (folder / name).symlink_to(secret)
    with pytest.raises(TierformError, match="leaves the model's folder") as caught:
        pack_model(folder, tmp_path / "x.tfs")
    assert caught.value.problems[0].value == str(secret)
    assert not (tmp_path / "x.tfs").exists()
    pack_model(tmp_path / "elsewhere" / "model.safetensors", tmp_path / "y.tfs")  # a file that is named is meant


def test_are_links_in_the_folder_and_into_the_cache_s_blobs_followed(tmp_path: Path) -> None:
    folder = _model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "weights.bin")
    (folder / "model.safetensors").symlink_to("weights.bin")
    pack_model(folder, tmp_path / "x.tfs")
    cache = tmp_path / "models--owner--name"
    blobs, snapshot = _model(cache / "blobs"), cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).symlink_to(os.path.relpath(blobs / name, snapshot))
    pack_model(snapshot, tmp_path / "y.tfs")
    with store.open(tmp_path / "y.tfs") as opened:
        assert json.loads(opened.attachment("config.json")) == {}
        assert list(opened) == ["a"]


def test_is_any_flipped_bit_of_compressed_planes_refused(tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    rng, path = np.random.default_rng(3), tmp_path / "x.tfs"
    # repetitions: frames with matches, in which a bit can change and the content stay the same
    weights = np.repeat(rng.standard_normal(8).astype(np.float16), 512)
    store.pack_tensors({"w": weights}, path, store.PackOptions(codec="zstd", threads=1))
    good = path.read_bytes()
    with store.open(path, threads=1) as opened:
        entry = opened.entry("w")
        opened.verify()
    start, end = entry.data_offset, entry.data_offset + entry.data_bytes
    assert end - start < 2000
    for place in range(start, end):
        content = bytearray(good)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        with store.open(path, threads=1) as opened, pytest.raises(TierformError):
            opened.verify()
