"""DRAMsim3's ``.ini`` configurations, read as they are.

The configuration becomes a :class:`DramSpec` with that simulator's controller rules: command queues per bank or rank,
write draining, rows closed after four hits when a conflict waits, refresh staggered over the ranks, both command buses
of HBM.  Its timing rules are written below as constraints.  Deliberate differences: ``RANK_LEVEL_SIMULTANEOUS``
refreshes every rank (there, only the first), bank-level refresh blocks the refreshed bank for tRFCb and the others for
tRRD_S (there, the others for tRFC), a rank may fall into self-refresh again after use (there, only before its first
use), and the last request of a trace is not repeated.  The notes of the memory name those that a configuration meets.
What DRAMsim3 does not read is not read here, either, and noted: REFI (its tREFI is then 7800), and tRTP_L and tRTP_S
where there is no tRTP (then 5).
Its energies are current x voltage x cycles; here they are joules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tierform.compat.dramsim.ini import Ini, Reader, parse
from tierform.errors import Problem, TierformError
from tierform.files import read_text
from tierform.memory.spec import Controller, Currents, DramSpec, check_timings
from tierform.provenance import Assumption

# Clock cycles per beat of the data bus: two beats a cycle, unless named here.
_BEATS = {"GDDR5": 4, "GDDR5X": 8, "GDDR6": 16}
_PROTOCOLS = ("DDR3", "DDR4", "GDDR5", "GDDR5X", "GDDR6", "LPDDR", "LPDDR3", "LPDDR4", "HBM", "HBM2")
_GRAPHICS = ("GDDR5", "GDDR5X", "GDDR6")
_HBM = ("HBM", "HBM2")

_INI_NAME = {
    "nCL": "CL",
    "nCWL": "CWL",
    "nRCDRD": "tRCD",
    "nRCDWR": "tRCD",
    "nRP": "tRP",
    "nRAS": "tRAS",
    "nRC": "tRAS",
    "nRTP": "tRTP",
    "nWR": "tWR",
    "nCCDS": "tCCD_S",
    "nCCDL": "tCCD_L",
    "nRRDS": "tRRD_S",
    "nRRDL": "tRRD_L",
    "nWTRS": "tWTR_S",
    "nWTRL": "tWTR_L",
    "nFAW": "tFAW",
    "nRFC": "tRFC",
    "nREFI": "tREFI",
    "nBL": "BL",
    "nRTW": "tRTRS",
}

_CONSTRAINTS = """\
bank   | ACT -> ACT REFB          | nRC
bank   | ACT -> RD RDA            | nRCDRD
bank   | ACT -> WR WRA            | nRCDWR
bank   | ACT -> PRE               | nRAS
bank   | RD -> PRE                | nAL + nRTP
bank   | WR -> PRE                | nAL + nCWL + nBL + nWR
bank   | PRE -> ACT REFB          | nRP
bank   | RDA -> ACT               | nAL + nBL + nRTP + nRP
bank   | RDA -> REFB              | nAL + nRTP + nRP
bank   | WRA -> ACT REFB          | nAL + nCWL + nBL + nWR + nRP
group  | RD RDA -> RD RDA         | max(nBL, nCCDL)
group  | WR WRA -> WR WRA         | max(nBL, nCCDL)
group  | WR WRA -> RD RDA         | nAL + nCWL + nBL + nWTRL
group  | ACT -> ACT               | nRRDL
rank   | RD RDA -> RD RDA         | max(nBL, nCCDS)
rank   | WR WRA -> WR WRA         | max(nBL, nCCDS)
rank   | RD RDA -> WR WRA         | nRTW
rank   | WR WRA -> RD RDA         | nAL + nCWL + nBL + nWTRS
rank   | ACT -> ACT               | nRRDS
rank   | ACT -> ACT               | nFAW | 4
rank   | PRE -> REF SRE           | nRP
rank   | RDA -> REF SRE           | nAL + nRTP + nRP
rank   | WRA -> REF SRE           | nAL + nCWL + nBL + nWR + nRP
rank   | REF -> ACT REF SRE       | nRFC
rank   | SRE -> SRX               | nCKESR
rank   | SRX -> ACT REF REFB SRE  | nXS
others | RD RDA -> RD RDA         | nBL + nCS
others | RD RDA -> WR WRA         | max(1, nCL - nCWL + nBL + nCS)
others | WR WRA -> RD RDA         | max(1, nCWL - nCL + nBL + nCS)
others | WR WRA -> WR WRA         | nBL
"""
_PRECHARGES = "rank   | PRE -> PRE               | nPPD\n"
_LONG_WINDOW = "rank   | ACT -> ACT               | n32AW | 32\n"
_BANK_REFRESH = """\
bank   | REFB -> ACT REFB         | nRFCb
rank   | REFB -> ACT              | nRRDS
rank   | REFB -> REF SRE          | nRFCb
rank   | REF -> REFB              | nRFC
"""


def read_ini(path: Path | str) -> DramSpec:
    """The memory of a DRAMsim3 configuration; TierformError with every mistake and its line."""
    return _spec(parse(read_text(path), str(path)), Path(path).stem)


def spec_of_sections(name: str, sections: Mapping[str, Mapping[str, object]], file: str) -> DramSpec:
    """As :func:`read_ini`, from the same sections and keys as plain values."""
    values = {(section, key): (str(value), 0) for section, keys in sections.items() for key, value in keys.items()}
    return _spec(Ini(file, values), name)


def _spec(ini: Ini, name: str) -> DramSpec:
    read = Reader(ini)
    protocol = read.choice("dram_structure", "protocol", "DDR3", _PROTOCOLS)
    groups = read.whole("dram_structure", "bankgroups", 2, least=1)
    per_group = read.whole("dram_structure", "banks_per_group", 2, least=1)
    if not read.flag("dram_structure", "bankgroup_enable", True):
        groups, per_group = 1, groups * per_group
    rows = read.whole("dram_structure", "rows", least=1)
    columns = read.whole("dram_structure", "columns", least=1)
    width = read.whole("dram_structure", "device_width", least=1)
    burst = read.whole("dram_structure", "BL", least=1)
    bus = read.whole("system", "bus_width", 64, least=1)
    channels = read.whole("system", "channels", 1, least=1)
    columns *= burst if protocol in _GRAPHICS else 2 if protocol in _HBM else 1
    mebibytes_per_rank = groups * per_group * rows * columns * bus // 8 / 2**20
    channel_size = read.whole("system", "channel_size", 1024, least=1)
    # A channel smaller than one rank of these devices has one rank all the same.
    ranks = max(1, int(channel_size // mebibytes_per_rank)) if mebibytes_per_rank else 1
    clock_s = read.number("timing", "tCK", least=1e-3, most=1e3) * 1e-9
    timings = _timings(read, protocol, groups, burst)
    currents = _currents(read)
    mapping = ini.text("system", "address_mapping", "chrobabgraco")
    controller = _controller(read, protocol)
    refresh_text = _BANK_REFRESH if "nRFCb" in timings else ""
    text = _CONSTRAINTS + refresh_text
    if protocol in _GRAPHICS or protocol == "LPDDR4":
        text += _PRECHARGES if timings["nPPD"] else ""
    if protocol in _GRAPHICS:
        text += _LONG_WINDOW
    for key, value in (
        ("rows", rows),
        ("columns", columns),
        ("device_width", width),
        ("bus_width", bus),
        ("bankgroups", groups),
        ("banks_per_group", per_group),
        ("channels", channels),
    ):
        if value & (value - 1):
            section = "system" if key in ("bus_width", "channels") else "dram_structure"
            what = "must be a power of two"
            read.problems.append(Problem(what, ini.file, ini.line(section, key), key, value))
    if ranks & (ranks - 1):
        what = f"gives {ranks} ranks, which is not a power of two"
        read.problems.append(Problem(what, ini.file, ini.line("system", "channel_size"), "channel_size", channel_size))
    if bus < width or bus % width:
        what = f"must be a whole number of devices of {width} bit wide"
        read.problems.append(Problem(what, ini.file, ini.line("system", "bus_width"), "bus_width", bus))
    if bus * burst % 8 or burst > columns:
        what = "a burst must be whole bytes and fit into a row"
        read.problems.append(Problem(what, ini.file, ini.line("dram_structure", "BL"), "BL", burst))
    if read.problems:
        raise TierformError(dict.fromkeys(read.problems))
    _consistent(read, timings)
    spec = DramSpec(
        name=name,
        standard=protocol,
        title=f"{protocol} of {ini.file}",
        channels=channels,
        ranks=ranks,
        bank_groups=groups,
        banks_per_group=per_group,
        rows=rows,
        columns=columns,
        device_width_bit=width,
        bus_width_bit=bus,
        burst_length=burst,
        clock_s=clock_s,
        timings=timings,
        currents=currents,
        mapping=mapping,
        controller=controller,
        additive_latency=timings["nAL"],
        constraint_text=text,
        file="",
        assumptions=(Assumption(name, ini.file, "assumed", note="a configuration given by the user"),),
        notes=tuple(_differences(ini, controller)),
    )
    try:
        spec.address_map()
    except TierformError as error:
        at = ini.line("system", "address_mapping")
        read.problems += [replace(problem, file=ini.file, line=at) for problem in error.problems]
    if read.problems:
        raise TierformError(dict.fromkeys(read.problems))
    return spec


def _differences(ini: Ini, controller: Controller) -> list[str]:
    """In what this configuration runs otherwise than in DRAMsim3, and what of it is not read."""
    notes = []
    if ini.has("timing", "REFI") and not ini.has("timing", "tREFI"):
        notes.append("REFI is no key of DRAMsim3 (tREFI is): a refresh comes every 7800 cycles, its default")
    if ini.has("timing", "tRTP_L") and not ini.has("timing", "tRTP"):
        notes.append("tRTP is missing, tRTP_L and tRTP_S are not read: tRTP is 5, as in DRAMsim3")
    if controller.refresh == "all-bank-simultaneous":
        notes.append("RANK_LEVEL_SIMULTANEOUS refreshes every rank (DRAMsim3: only the first)")
    if controller.refresh == "per-bank":
        notes.append(
            "BANK_LEVEL_STAGGERED holds the refreshed bank for tRFCb and other banks for tRRD_S (DRAMsim3: other banks "
            "for tRFC, the refreshed one not at all)"
        )
    if controller.self_refresh_after is not None:
        notes.append("a rank may return to self-refresh after use (DRAMsim3: only before its first use)")
    return notes


def _timings(read: Reader, protocol: str, groups: int, burst: int) -> dict[str, int]:
    def cycles(key: str, default: int | None = None, least: int = 0) -> int:
        return read.whole("timing", key, default, least=least)

    beats = _BEATS.get(protocol, 2)
    if burst % beats:
        what = f"a burst must be a multiple of {beats} beats"
        read.problems.append(Problem(what, read.ini.file, read.ini.line("dram_structure", "BL"), "BL", burst))
    split = protocol in _GRAPHICS or protocol in _HBM
    t = {
        "BL": burst,
        "nBL": max(1, burst // beats),
        "nAL": cycles("AL", 0),
        "nCL": cycles("CL", least=1),
        "nCWL": cycles("CWL", least=1),
        "nRP": cycles("tRP", least=1),
        "nRAS": cycles("tRAS", least=1),
        # Where a file gives only tRTP_L and tRTP_S, DRAMsim3 goes on with its default.
        "nRTP": cycles("tRTP", 5 if read.ini.has("timing", "tRTP_L") else None, least=1),
        "nWR": cycles("tWR", least=1),
        "nCCDS": cycles("tCCD_S", least=1),
        "nCCDL": cycles("tCCD_L" if groups > 1 else "tCCD_S", least=1),
        "nRRDS": cycles("tRRD_S", least=1),
        "nRRDL": cycles("tRRD_L" if groups > 1 else "tRRD_S", least=1),
        "nWTRS": cycles("tWTR_S", least=1),
        "nWTRL": cycles("tWTR_L" if groups > 1 else "tWTR_S", least=1),
        "nFAW": cycles("tFAW", least=1),
        "nRFC": cycles("tRFC", least=1),
        "nREFI": cycles("tREFI", 7800 if read.ini.has("timing", "REFI") else None, least=1),
        "nCS": cycles("tRTRS", 2),
        "nPPD": cycles("tPPD", 0),
        "nCKE": cycles("tCKE", 6),
        "nCKESR": cycles("tCKESR", 12),
        "nXP": cycles("tXP", 8),
        "nXS": cycles("tXS", 432),
    }
    t["nRCDRD"] = cycles("tRCDRD", least=1) if split else cycles("tRCD", least=1) - t["nAL"]
    t["nRCDWR"] = cycles("tRCDWR", least=1) if split else t["nRCDRD"]
    t["nRC"] = t["nRAS"] + t["nRP"]
    t["nRTW"] = t["nCL"] + t["nBL"] - t["nCWL"] + t["nCS"]
    if protocol in _GRAPHICS:
        t["n32AW"] = cycles("t32AW", 330)
    if read.ini.has("timing", "tREFIb"):
        t["nREFIb"] = cycles("tREFIb", least=1)
        t["nRFCb"] = cycles("tRFCb", 20, least=1)
    return t


def _consistent(read: Reader, timings: dict[str, int]) -> None:
    try:
        check_timings(timings, read.ini.file, _line_finder(read.ini))
    except TierformError as error:
        for problem in error.problems:
            what = problem.what
            for ours, theirs in _INI_NAME.items():
                what = re.sub(rf"\b{ours}\b", theirs, what)
            read.problems.append(replace(problem, what=what, key=_INI_NAME.get(problem.key or "", problem.key)))


def _line_finder(ini: Ini) -> Callable[[str], int | None]:
    def line_of(name: str) -> int | None:
        key = _INI_NAME.get(name, name)
        return ini.line("timing", key) or ini.line("timing", "tRCDRD" if name == "nRCDRD" else key)

    return line_of


def _currents(read: Reader) -> Currents:
    def milliampere(key: str, default: float | None = None) -> float:
        return read.number("power", key, default, most=1e5) * 1e-3

    vdd = read.number("power", "VDD", least=1e-3, most=100)
    optional = {
        ours: milliampere(theirs, 0.0)
        for ours, theirs in (("IDD2P", "IDD2P"), ("IDD3P", "IDD3P"), ("IDD5PB", "IDD5PB"), ("IDD6", "IDD6x"))
        if read.ini.has("power", theirs)
    }
    return Currents(
        VDD=vdd,
        IDD0=milliampere("IDD0"),
        IDD2N=milliampere("IDD2N"),
        IDD3N=milliampere("IDD3N"),
        IDD4R=milliampere("IDD4R"),
        IDD4W=milliampere("IDD4W"),
        IDD5B=milliampere("IDD5AB"),
        **optional,
    )


def _controller(read: Reader, protocol: str) -> Controller:
    policy = read.choice("system", "row_buf_policy", "OPEN_PAGE", ("OPEN_PAGE", "CLOSE_PAGE"))
    structure = read.choice("system", "queue_structure", "PER_BANK", ("PER_BANK", "PER_RANK"))
    refresh = read.choice(
        "system",
        "refresh_policy",
        "RANK_LEVEL_STAGGERED",
        ("RANK_LEVEL_STAGGERED", "RANK_LEVEL_SIMULTANEOUS", "BANK_LEVEL_STAGGERED"),
    )
    if refresh == "BANK_LEVEL_STAGGERED" and not read.ini.has("timing", "tREFIb"):
        what = "bank-level refresh needs tREFIb"
        read.problems.append(Problem(what, read.ini.file, read.ini.line("system", "refresh_policy"), "refresh_policy"))
    return Controller(
        row_policy="closed" if policy == "CLOSE_PAGE" else "open",
        refresh={
            "RANK_LEVEL_STAGGERED": "all-bank",
            "RANK_LEVEL_SIMULTANEOUS": "all-bank-simultaneous",
            "BANK_LEVEL_STAGGERED": "per-bank",
        }.get(refresh, "all-bank"),
        queue_per="rank" if structure == "PER_RANK" else "bank",
        command_queue=read.whole("system", "cmd_queue_size", 16, least=1),
        transaction_queue=read.whole("system", "trans_queue_size", 32, least=1),
        unified_queue=read.flag("system", "unified_queue", False),
        dual_command=protocol in _HBM and read.flag("dram_structure", "hbm_dual_cmd", True),
        self_refresh_after=read.whole("system", "sref_threshold", 1000, least=1)
        if read.flag("system", "enable_self_refresh", False)
        else None,
    )
