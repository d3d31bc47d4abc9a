"""Are traces of packets, in text and in netrace's format, read as they are meant, and bad ones refused?"""

import bz2
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.compat.noc_traces import read_trace
from tierform.errors import TierformError


def _netrace(packets, notes=b"a note\0", regions=1):
    head = struct.pack("<If30sBBQQII8x", 0x484A5455, 1.0, b"toy", 16, 0, 1000, len(packets), len(notes), regions)
    body = b"".join(
        struct.pack("<QIIBBBBB", cycle, number, 0xABC, kind, source, goal, 0, len(after))
        + struct.pack(f"<{len(after)}I", *after)
        for cycle, number, kind, source, goal, after in packets
    )
    return head + notes + bytes(24 * regions) + body


# A read request (kind 1: 8 bytes), its response with a cache line (kind 2: 72 bytes) that waits for it, a write-back.
PACKETS = [(1000, 7, 1, 0, 5, [9]), (1010, 9, 2, 5, 0, []), (1020, 11, 6, 3, 4, [99])]


def test_text_with_comments_and_commas(tmp_path):
    path = tmp_path / "x.trace"
    path.write_text("# cycle source destination flits\n0 1 2 3\n\n5,3,0,1  # late\n")
    trace = read_trace(path)
    assert [trace.cycle.tolist(), trace.source.tolist(), trace.destination.tolist(), trace.flits.tolist()] == [
        [0, 5],
        [1, 3],
        [2, 0],
        [3, 1],
    ]
    assert len(trace.after) == 0


@pytest.mark.parametrize("pack", [lambda b: b, bz2.compress], ids=["plain", "bzip2"])
def test_netrace_sizes_ends_and_followers(tmp_path, pack):
    path = tmp_path / "x.tra"
    path.write_bytes(pack(_netrace(PACKETS)))
    trace = read_trace(path, flit_B=8)
    assert trace.cycle.tolist() == [0, 10, 20]
    assert (trace.source.tolist(), trace.destination.tolist()) == ([0, 5, 3], [5, 0, 4])
    assert trace.flits.tolist() == [1, 9, 9]
    # Packet 99 is not in this part of the trace.
    assert trace.after.tolist() == [[0, 1]]
    assert read_trace(path, flit_B=32).flits.tolist() == [1, 3, 3]
    assert len(read_trace(path, max_packets=2)) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"0 1 2\n", "is expected"),
        (b"0 1 2 x\n", "is expected"),
        ("0 1 2 ²\n".encode(), "is expected"),
        (b"", "no packet"),
        (b"\xff\xfe\x00", "neither text nor"),
        (_netrace(PACKETS)[:40], "header"),
        (_netrace([(0, 1, 1, 0, 1, [2, 3, 4])])[:-4], "within a packet"),
        (bz2.compress(b"0 1 2 3\n")[:-8], "cannot be read"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, content, words):
    path = tmp_path / "x.trace"
    path.write_bytes(content)
    with pytest.raises(TierformError, match=words):
        read_trace(path)


@given(st.binary(max_size=200), st.integers(0, 200), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory, noise, at, real):
    content = bytearray(_netrace(PACKETS) if real else b"0 1 2 3\n" * 20)
    content[at : at + len(noise)] = noise
    path = tmp_path_factory.mktemp("fuzz") / "x.trace"
    path.write_bytes(bytes(content))
    try:
        trace = read_trace(path)
        assert len(trace) > 0
    except TierformError as error:
        assert str(error)
