"""DRAMsim3's configurations and traces: read, simulated to its own counts, refused when wrong; the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tierform.cli.main import main
from tierform.compat.dramsim.configuration import read_ini, spec_of_sections
from tierform.compat.dramsim.trace import read_trace
from tierform.errors import TierformError
from tierform.files import read_yaml
from tierform.memory.cycle import CycleMemory, Trace
from tierform.validation import memory as validation

TABLE = Path(validation.__file__).parent / "tables" / "memory_configurations.yaml"
CONFIGURATIONS = read_yaml(TABLE).content


def _ini(path: Path, name: str = "DDR4_8Gb_x8_2400", **changes: str | None) -> Path:
    lines = []
    for section, keys in CONFIGURATIONS[name].items():
        lines.append(f"[{section}]")
        for key, value in keys.items():
            given = changes.get(key, str(value))
            if given is not None:
                lines.append(f"{key} = {given} ; as configured")
    path.write_text("\n".join(lines) + "\n[other]\nanything = 1\n")
    return path


def test_the_file_and_the_table_give_the_same_memory(tmp_path: Path) -> None:
    for name, sections in CONFIGURATIONS.items():
        read = read_ini(_ini(tmp_path / f"{name}.ini", name))
        table = spec_of_sections(name, sections, "table")
        assert (read.timings, read.currents, read.controller) == (table.timings, table.currents, table.controller)
    ddr4 = spec_of_sections("DDR4", CONFIGURATIONS["DDR4_8Gb_x8_2400"], "table")
    assert (ddr4.ranks, ddr4.devices_per_rank, ddr4.burst_bytes, ddr4.capacity_B) == (2, 8, 64, 16 * 2**30)


# Counts of DRAMsim3 itself (cycles, reads done, activations, read row hits) on sequential traces of 100,000 reads.
@pytest.mark.parametrize(
    ("name", "gap", "cycles", "reads", "activations", "hits", "latency"),
    [
        ("DDR4_8Gb_x8_2400", 1, 200_000, 38_775, 336, 38_446, 244.35),
        ("DDR4_8Gb_x8_2400", 20, 2_200_000, 100_000, 992, 99_008, 38.19),
        ("HBM2_8Gb_x128", 1, 100_000, 98_366, 3_131, 95_257, 61.06),
        ("HBM2_8Gb_x128", 20, 2_200_000, 100_000, 3_621, 96_379, 29.33),
    ],
)
def test_sequential_traces_give_dramsim3s_own_counts(
    name: str, gap: int, cycles: int, reads: int, activations: int, hits: int, latency: float
) -> None:
    number = np.arange(100_000)
    trace = Trace(number * gap, number * 64, np.zeros(100_000, np.bool_))
    result = CycleMemory(spec_of_sections(name, CONFIGURATIONS[name], "table")).run(trace, cycles)
    assert (result.reads, result.activations, result.read_row_hits) == (reads, activations, hits)
    assert result.average_read_latency_cycles == pytest.approx(latency, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tRCD": None}, ["tRCD", "lacks this key"]),
        ({"tRRD_L": "2"}, ["tRRD_L", "at least tRRD_S (4)"]),
        ({"tREFI": "100"}, ["tREFI", "tRFC (420)"]),
        ({"tRAS": "many"}, ["tRAS", "a number"]),
        ({"address_mapping": "rochrabaxxco"}, ["leaves bg unresolved"]),
        ({"address_mapping": "rorarababgco"}, ["'ra' stands twice", "leaves ch unresolved"]),
        ({"protocol": "DDR9"}, ["not a known choice", "did you mean"]),
        ({"row_buf_policy": "OPEN"}, ["OPEN_PAGE"]),
        ({"rows": "1000"}, ["power of two"]),
        ({"tRP": None, "tWR": None}, ["tRP", "tWR"]),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_keys(
    tmp_path: Path, changes: dict[str, str | None], words: list[str]
) -> None:
    with pytest.raises(TierformError) as caught:
        read_ini(_ini(tmp_path / "wrong.ini", **changes))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "timing", "value", "note"),
    [
        ({"tREFI": None, "tRP": "17\nREFI = 6240"}, "nREFI", 7800, "REFI is no key of DRAMsim3"),
        ({"tRTP": None, "tRP": "17\ntRTP_L = 6\ntRTP_S = 4"}, "nRTP", 5, "tRTP is 5, as in DRAMsim3"),
    ],
)
def test_what_dramsim3_does_not_read_is_not_read_and_said(
    tmp_path: Path, changes: dict[str, str | None], timing: str, value: int, note: str
) -> None:
    spec = read_ini(_ini(tmp_path / "noted.ini", **changes))
    assert spec.timings[timing] == value
    assert [note in text for text in spec.notes] == [True]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"refresh_policy": "RANK_LEVEL_SIMULTANEOUS"}, "refreshes every rank"),
        ({"refresh_policy": "BANK_LEVEL_STAGGERED", "tRP": "17\ntREFIb = 975\ntRFCb = 200"}, "BANK_LEVEL_STAGGERED"),
        ({"channels": "1\nenable_self_refresh = true"}, "self-refresh after use"),
    ],
)
def test_a_difference_from_dramsim3_is_named_where_it_is_met(
    tmp_path: Path, changes: dict[str, str | None], note: str
) -> None:
    assert read_ini(_ini(tmp_path / "plain.ini")).notes == ()
    assert note in " ".join(read_ini(_ini(tmp_path / "other.ini", **changes)).notes)


def test_without_bank_groups_the_short_spacings_are_enough(tmp_path: Path) -> None:
    missing = dict.fromkeys(("tCCD_L", "tRRD_L", "tWTR_L"))
    spec = read_ini(_ini(tmp_path / "d.ini", bankgroups="1", banks_per_group="16", **missing))
    t = spec.timings
    assert (t["nCCDL"], t["nRRDL"], t["nWTRL"]) == (t["nCCDS"], t["nRRDS"], t["nWTRS"])
    with pytest.raises(TierformError, match="tCCD_L"):
        read_ini(_ini(tmp_path / "e.ini", **missing))


def test_a_remark_in_parentheses_is_no_part_of_a_number(tmp_path: Path) -> None:
    assert read_ini(_ini(tmp_path / "d.ini", tCK="0.666 (1/1.5)")).clock_s == pytest.approx(0.666e-9)
    with pytest.raises(TierformError, match="a number between"):
        read_ini(_ini(tmp_path / "e.ini", tCK="0.666 1.5)"))


def test_an_unknown_key_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.ini"
    path.write_text("[timing]\ntRPP = 17\n")
    with pytest.raises(TierformError, match=r"x.ini:2: tRPP: unknown key\n    did you mean 'tRP'"):
        read_ini(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0x0 READ 0\n0x40 FETCH 1\n", ":2: neither a read nor a write"),
        ("0x0 READ 0\n\n0x40 READ\n", ":3: this is not a request"),
        ("zz READ 0\n", ":1: the address is not hexadecimal"),
        ("0x0 READ 5\n0x40 WRITE 4\n", ":2: the trace goes back in time, from cycle 5"),
        ("0x0 READ -5\n", ":1: the cycle is not a whole number"),
        ("", "holds no request"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.trace"
    path.write_text(text)
    with pytest.raises(TierformError) as caught:
        read_trace(path)
    assert words in str(caught.value)


def test_the_command_prints_and_writes_its_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "x.trace"
    trace.write_text("".join(f"{i * 64:#x} {'WRITE' if i % 3 == 2 else 'READ'} {i * 4}\n" for i in range(300)))
    out = tmp_path / "out.json"
    arguments = ["memory", "--config", str(_ini(tmp_path / "d.ini")), "--trace", str(trace), "--cycles", "3000"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--json", str(out), "--commands", str(tmp_path / "commands.txt")])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "average read latency" in printed and "DRAMsim3 offers the last address of a trace once more" in printed
    figures = json.loads(out.read_text())
    assert figures["reads"] + figures["writes"] == 300
    assert figures["request_bandwidth_B_per_s"] == pytest.approx(300 * 64 / (3000 * 0.83e-9))
    # At most eight writes wait in the buffer of the one channel at the end; everything else went over the pins.
    assert 292 <= figures["bandwidth_B_per_s"] * 3000 * 0.83e-9 / 64 <= 300
    assert figures["energy_J"] == pytest.approx(sum(figures["energy_by_part_J"].values()))
    assert {"average_read_latency_cycles", "row_hits", "cpu_s"} <= set(figures)
    assert "ACT bank" in (tmp_path / "commands.txt").read_text()
    with pytest.raises(SystemExit):
        main([*arguments[:-1], "600"])
    assert "once more" not in capsys.readouterr().out  # the trace is not at its end


@pytest.mark.parametrize(("cycle", "more"), [(10**12, []), (4, ["--cycles", "1000000000001"])])
def test_a_run_that_would_take_hours_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cycle: int, more: list[str]
) -> None:
    """Idle cycles are skipped, but each refresh is simulated: 10^12 cycles take a quarter of a minute."""
    (tmp_path / "x.trace").write_text(f"0x0 READ 0\n0x40 READ {cycle}\n")
    arguments = ["memory", "--config", str(_ini(tmp_path / "d.ini")), "--trace", str(tmp_path / "x.trace")]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, *more])
    assert stop.value.code == 2
    assert "1e+12" in capsys.readouterr().err


def test_an_address_beyond_the_capacity_is_wrapped_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, out = tmp_path / "x.trace", tmp_path / "out.json"
    trace.write_text("0xffffffffff READ 5\n")
    arguments = ["memory", "--memory", "hbm2", "--trace", str(trace), "--json", str(out)]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "beyond the capacity" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--wrap"])
    assert stop.value.code == 0
