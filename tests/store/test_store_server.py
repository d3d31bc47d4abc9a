"""Can ordinary clients read every precision over HTTP, and does the server outlive bad ones?"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tierform.store as store
from tierform.errors import TierformError
from tierform.store.server import StoreServer, parse_range
from tierform.store.windows import AddressMap, Window, from_plane_rows


@pytest.fixture
def served(small_store: Path) -> Iterator[tuple[store.Store, StoreServer]]:
    with store.open(small_store) as opened, StoreServer(opened, timeout_s=1.0, connections=8) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield opened, server
        server.shutdown()
        thread.join()


def fetch(server: StoreServer, path: str, byte_range: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    connection.request("GET", path, headers={"Range": byte_range} if byte_range else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.headers)


@pytest.mark.parametrize("bits", [3, 8, 11, 16])
def test_safetensors_reads_each_window_unchanged(served, tmp_path: Path, bits: int) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    opened, server = served
    file = tmp_path / "got.safetensors"
    urllib.request.urlretrieve(f"{server.url}/bits-{bits}/model.safetensors", file)
    got = safetensors.load_file(file)
    assert set(got) == set(opened)
    for name, tensor in got.items():
        planes = opened.entry(name).element.planes
        assert tensor.dtype == opened.torch(name).dtype
        expected = opened.torch(name, min(bits, planes)).reshape(-1)
        assert tensor.reshape(-1).view(torch.uint8).equal(expected.view(torch.uint8))


def test_fsspec_reads_one_tensor_by_ranges(served) -> None:
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    opened, server = served
    with fsspec.open(f"{server.url}/bits-9/model.safetensors", block_size=4096).open() as remote:
        size = int.from_bytes(remote.read(8), "little")
        header = json.loads(remote.read(size))
        first, last = header["layer.q"]["data_offsets"]
        remote.seek(8 + size + first)
        content = remote.read(last - first)
    np.testing.assert_array_equal(np.frombuffer(content, np.int8).reshape(40, 100), opened.read("layer.q"))


def test_any_range_is_the_slice_of_the_whole(served) -> None:
    _, server = served
    _, whole, head = fetch(server, "/bits-5/model.safetensors")
    assert head["Accept-Ranges"] == "bytes" and int(head["Content-Length"]) == len(whole)
    rng = np.random.default_rng(0)
    for _ in range(40):
        start = int(rng.integers(0, len(whole)))
        end = int(rng.integers(start, len(whole) + 50))
        status, part, head = fetch(server, "/bits-5/model.safetensors", f"bytes={start}-{end}")
        assert status == 206 and part == whole[start : end + 1]
        assert head["Content-Range"] == f"bytes {start}-{min(end, len(whole) - 1)}/{len(whole)}"
    assert fetch(server, "/bits-5/model.safetensors", "bytes=-7")[1] == whole[-7:]
    assert fetch(server, "/bits-5/model.safetensors", "bytes=100-")[1] == whole[100:]


def test_bad_ranges() -> None:
    assert parse_range(None, 10) == (0, 10, False)
    assert parse_range("lines=1-2", 10) == (0, 10, False)
    assert parse_range("bytes=2-5", 10) == (2, 6, True)
    assert parse_range("bytes=-100", 10) == (0, 10, True)
    assert parse_range("bytes=9-", 10) == (9, 10, True)
    for bad in ("bytes=10-", "bytes=5-2", "bytes=-0", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "bytes=1", "bytes"):
        assert parse_range(bad, 10) is None
    assert parse_range("bytes=" + "9" * 40 + "-", 10) is None


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/bits-4/../../etc/passwd",
        "/bits-4/%2e%2e/x",
        "/bits-0/model.safetensors",
        "/bits-33/model.safetensors",
        "/bits-4/",
        "//etc/passwd",
        "/bits-4/safetensors-metadata.json",
        "/%ff",
        "/bits-4/model.safetensors/x",
        "/bits-04/model.safetensors",
    ],
)
def test_nothing_but_the_store_is_served(served, path: str) -> None:
    _, server = served
    assert fetch(server, path)[0] == 404


def test_listing_and_files(served) -> None:
    _, server = served
    status, content, _ = fetch(server, "/")
    listing = json.loads(content)
    assert status == 200 and len(listing["windows"]) == 64  # the widest type has 32 planes, two views
    assert fetch(server, "/bits-4/config.json")[1] == b'{"a": 1}'
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    for method, status in (("POST", 501), ("PUT", 501), ("HEAD", 200)):
        connection.request(method, "/bits-4/model.safetensors")
        answer = connection.getresponse()
        assert answer.status == status
        answer.read()
        connection.close()


def test_noise_and_slow_clients_do_not_stop_it(served) -> None:
    _, server = served
    noisy = [
        b"\0" * 400,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    ]
    for content in noisy:
        with socket.create_connection(server.server_address[:2], timeout=5) as client:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    idle = [socket.create_connection(server.server_address[:2], timeout=10) for _ in range(8)]
    for client in idle:
        client.sendall(b"GET / HT")
    time.sleep(0.2)
    assert fetch(server, "/")[0] == 503  # all places are taken, and said so at once
    deadline = time.monotonic() + 8
    while True:  # a client that drips a byte now and then is cut off all the same
        for client in idle:
            try:
                client.sendall(b"T")
            except OSError:
                continue
        try:
            if fetch(server, "/")[0] == 200:
                break
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for client in idle:
        client.close()


def test_load_from_many_clients(served) -> None:
    opened, server = served
    expected = Window(opened, 7).read(0, Window(opened, 7).size)
    wrong: list[object] = []

    def client(seed: int) -> None:
        rng = np.random.default_rng(seed)
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
        for _ in range(60):
            start = int(rng.integers(0, len(expected) - 1))
            end = int(rng.integers(start + 1, len(expected)))
            connection.request("GET", "/bits-7/model.safetensors", headers={"Range": f"bytes={start}-{end - 1}"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 206 or content != expected[start:end]:
                wrong.append((answer.status, start, end))
        connection.close()

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_damaged_store_is_never_served_as_weights(small_store: Path) -> None:
    with store.open(small_store) as opened:
        place = opened.entry("layer.weight").data_offset
    content = bytearray(small_store.read_bytes())
    content[place] ^= 1
    small_store.write_bytes(content)
    with store.open(small_store) as opened, StoreServer(opened) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        assert server.server_address[0] == "127.0.0.1"
        assert fetch(server, "/bits-4/model.safetensors")[0] == 500
        server.shutdown()
        thread.join()


def test_plane_windows_hold_k_bits_a_weight_and_rebuild_the_tensor(small_store: Path) -> None:
    with store.open(small_store) as opened:
        for bits in (1, 6, 16):
            window = Window(opened, bits, "planes")
            size = int.from_bytes(window.read(0, 8), "little")
            header = json.loads(window.read(8, 8 + size))
            first, last = header["layer.weight"]["data_offsets"]
            assert last - first == 150 * 512 * bits // 8
            rows = np.frombuffer(window.read(8 + size + first, 8 + size + last), np.uint8).reshape(150, bits, 64)
            kind, shape = header["__metadata__"]["tierform.layer.weight"].split()
            got = from_plane_rows(rows, kind, tuple(int(one) for one in shape.split(",")))
            np.testing.assert_array_equal(got, opened.codes("layer.weight", bits))


def test_the_address_map_tells_the_planes_and_stores_nothing_twice(small_store: Path) -> None:
    with store.open(small_store) as opened:
        views = AddressMap(opened, [16, 12, 8, 6, 4])
        base = views.bases[3]
        window = views.windows[3]
        size = len(window.header)
        at = window.header.index(b'"layer.weight"')
        first = json.loads(window.header[8:])["layer.weight"]["data_offsets"][0]
        assert at > 0
        reads = views.resolve(base + size + first + 6 * 64 * 10, 6 * 64 * 3)
        assert [(one.tensor, one.first_block, one.blocks, one.planes) for one in reads] == [("layer.weight", 10, 3, 6)]
        assert reads[0].physical_B == 6 * 64 * 3  # what is asked is what is fetched
        everything = views.resolve(base, window.size)
        assert sum(one.physical_B for one in everything) == window.size - size
        assert 2.5 < views.bloat < 3.3
        for wrong in (-1, views.logical_B + 4096):
            with pytest.raises(TierformError, match="address"):
                views.resolve(wrong, 1)
        with pytest.raises(TierformError, match="own"):
            AddressMap(opened, [4, 4])
