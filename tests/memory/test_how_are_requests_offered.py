"""Several traces, several requests a cycle, words shorter than a burst: what is counted, and what limits it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.cli.main import main
from tierform.compat.dramsim.configuration import spec_of_sections
from tierform.compat.ramulator import parse_trace
from tierform.errors import TierformError
from tierform.files import read_yaml
from tierform.memory.cycle import CycleMemory, Trace
from tierform.memory.standard import load_dram
from tierform.memory.traffic import requests
from tierform.validation import memory as validation

CONFIGURATIONS = read_yaml(Path(validation.__file__).parent / "tables" / "memory_configurations.yaml").content


def _reads(addresses: list[int] | np.ndarray, cycles: list[int] | np.ndarray | None = None) -> Trace:
    address = np.asarray(addresses, np.int64)
    cycle = np.zeros(address.size, np.int64) if cycles is None else np.asarray(cycles, np.int64)
    return Trace(cycle, address, np.zeros(address.size, np.bool_))


# Counts of DRAMsim3 itself: 16-byte words in order, one a cycle; every fifth is a write, every seventh asks again for
# the address of three requests before.  20,000 cycles.
@pytest.mark.parametrize(
    ("name", "done", "commands", "rows", "hits"),
    [
        ("DDR4_8Gb_x8_2400", (2995, 761), (2570, 741), (11, 7), (2561, 739)),
        ("HBM2_8Gb_x128", (14842, 3721), (12735, 3686), (156, 152), (12582, 3684)),
    ],
)
def test_words_shorter_than_a_burst_give_dramsim3s_own_counts(
    name: str, done: tuple[int, int], commands: tuple[int, int], rows: tuple[int, int], hits: tuple[int, int]
) -> None:
    number = np.arange(20_000)
    address = np.where(number % 7 == 6, number - 3, number) * 16
    memory = CycleMemory(spec_of_sections(name, CONFIGURATIONS[name], "table"))
    result = memory.run(Trace(number, address, number % 5 == 4), 20_000)
    assert (result.reads, result.writes) == done
    assert (result.read_commands, result.write_commands) == commands
    assert (result.activations, result.precharges) == rows
    assert (result.read_row_hits, result.write_row_hits) == hits
    assert result.bandwidth_B_per_s <= result.peak_B_per_s


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["ddr4", "gddr6", "hbm2", "lpddr5"]),
    step=st.sampled_from([0, 1, 16, 64, 4096]),
    writes=st.floats(0, 1),
    cycles=st.one_of(st.none(), st.integers(1, 3000)),
    issue=st.sampled_from([1, 3, 32]),
)
def test_the_pins_never_carry_more_than_they_can(
    name: str, step: int, writes: float, cycles: int | None, issue: int
) -> None:
    count = 600
    is_write = np.random.default_rng(1).random(count) < writes
    trace = Trace(np.zeros(count, np.int64), np.arange(count, dtype=np.int64) * step, is_write)
    result = CycleMemory(load_dram(name)).run(trace, cycles, issue=issue)
    assert result.bandwidth_B_per_s <= result.peak_B_per_s * (1 + 1e-12)


def test_one_trace_for_each_channel_is_as_many_memories_of_one_channel() -> None:
    spec = load_dram("hbm2").with_channels(4)
    one = CycleMemory(spec.with_channels(1))
    alone = [requests(one.spec, pattern, 500, 0.7, seed=k) for k, pattern in enumerate(("random", "stream") * 2)]
    together = CycleMemory(spec).run(alone, 4_000, per_channel=True)
    apart = [one.run(trace, 4_000) for trace in alone]
    assert together.activations == sum(result.activations for result in apart)
    assert together.reads == sum(result.reads for result in apart)
    np.testing.assert_array_equal(together.latency_cycles, np.concatenate([result.latency_cycles for result in apart]))
    assert together.energy_J == pytest.approx(sum(result.energy_J for result in apart), rel=1e-12)


def test_side_by_side_traces_take_turns_before_a_full_memory() -> None:
    spec = load_dram("ddr4").with_channels(1)
    first, second = (_reads(np.arange(2_000) * 64 + half * spec.capacity_B // 2) for half in (0, 1))
    result = CycleMemory(spec).run([first, second], 6_000)
    done = (result.latency_cycles >= 0).reshape(2, 2_000).sum(axis=1)
    assert done.min() > 0.8 * done.max()


def test_more_requests_a_cycle_fill_more_of_a_wide_memory_and_the_limit_is_said() -> None:
    # 3,200 requests for 32 channels; a port of one a cycle fills 64 B / cycle of a peak of 32 x 32 B / 2 cycles.
    memory = CycleMemory(load_dram("hbm3"))
    address = np.arange(3_200) * memory.spec.burst_bytes
    one, many = (memory.run(_reads(address), issue=issue) for issue in (1, 32))
    assert one.bandwidth_B_per_s < 0.07 * one.peak_B_per_s
    assert "one request a cycle can fill 6.2 % of the pins of 32 channels" in one.limit
    assert many.bandwidth_B_per_s > 6 * one.bandwidth_B_per_s
    spaced = memory.run(_reads(address[:100], np.arange(100) * 1_000))
    assert "come in their cycles" in spaced.limit
    waiting = CycleMemory(load_dram("ddr4")).run(_reads(address % 2**20 * 997 // 64 * 64))
    assert waiting.limit.startswith("the memory")


def test_ramulator_traces_of_each_kind_give_the_same_addresses() -> None:
    spec = load_dram("ddr4")
    mapping = spec.address_map()
    number = 37 << mapping.position["ro"] | 2 << mapping.position["ba"] | 1 << mapping.position["bg"]
    address = (number | 5 << mapping.position["co"]) * spec.burst_bytes
    texts = [
        f"LD {address}\nST {address:#x}\n",
        f"R {address:#x}\n# a remark\nW {address}\n",
        f"{address:#x} R\n{address:#x} W\n",
        "R 0,0,1,2,37,40\nW 0,0,1,2,37,47\n",  # columns 40 to 47 lie in the sixth burst of eight
    ]
    for text in texts:
        trace = parse_trace(text, spec, "x")
        assert trace.address.tolist() == [address, address]
        assert trace.is_write.tolist() == [False, True]
        assert trace.cycle.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R 16\nQ 32\n", ":2: neither a read nor a write"),
        ("R 16\nW x\n", ":2: this is no address"),
        ("LD ²\n", ":1: this is no address"),
        ("LD 99999999999999999999\n", ":1: this is no address"),
        ("LD 9999999999999999999\n", ":1: the address is out of range"),
        ("R 0,0,9,0,0,0\n", ":1: the bank group is at most 3"),
        ("R 0,0,0,0,0\n", ":1: the memory has bank groups"),
        ("R 16 5\n", ":1: this is not a request"),
    ],
)
def test_a_wrong_ramulator_trace_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(TierformError) as caught:
        parse_trace(text, load_dram("ddr4"), "x")
    assert words in str(caught.value)


def test_the_command_takes_ramulators_traces_and_writes_latencies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, table, out = tmp_path / "x.trace", tmp_path / "latencies.csv", tmp_path / "x.json"
    trace.write_text("R 4096\nW 8192\n")
    arguments = ["memory", "--memory", "ddr4", "--trace", str(trace), "--latencies", str(table), "--json", str(out)]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    assert "limited by" in capsys.readouterr().out
    lines = table.read_text().splitlines()
    assert lines[0] == "trace,request,kind,address,cycle,accepted_cycle,latency_cycles,latency_ns"
    # Taken in cycle 0; the row opens in cycle 2, and the first read of an idle bank takes nRCD + nCL + nBL more.
    spec = load_dram("ddr4")
    t = spec.timings
    latency = 1 + t["nRCDRD"] + t["nCL"] + t["nBL"]
    assert lines[1].startswith(f"0,0,read,0x1000,0,0,{latency},")
    assert lines[2].startswith("0,1,write,0x2000,0,1,")
    assert {"limit", "peak_B_per_s", "request_bandwidth_B_per_s", "notes"} <= set(json.loads(out.read_text()))


def test_as_many_traces_as_channels_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "x.trace"
    trace.write_text("0x0 READ 0\n")
    with pytest.raises(SystemExit) as stop:
        main(["memory", "--memory", "ddr5", "--trace", str(trace), "--per-channel"])
    assert stop.value.code == 2
    assert "--trace 2 times" in capsys.readouterr().err


def test_is_a_wrong_setting_told_as_the_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "x.trace"
    trace.write_text("0x0 READ 0\n")
    with pytest.raises(SystemExit) as stop:
        main(["memory", "--memory", "ddr4", "--trace", str(trace), "--set", "nCL=abc"])
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert "--set nCL: 'abc' is not a timing of this memory" in told
    assert "ddr4.yaml" not in told and len(told.strip().splitlines()) == 1
