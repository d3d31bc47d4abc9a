"""SCALE-Sim's configuration (.cfg) and topology (.csv) files, read and checked; every mistake with its line.

Versions 2 and 3 are read.  What is not modelled (row-wise random sparsity) is refused by name when it is
switched on.  Keys that change no figure of the reports (address offsets,
request buffers without latencies of the DRAM, bank counts without a layout) are accepted and listed.
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from tierform.chip.systolic.folds import DATAFLOWS, DENSE, Sparsity
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_text

MAX_LAYERS = 100_000
_MOST = 2**24  # of any size, in words, rows or elements of an axis
_MOST_ELEMENTS = 2**40  # of any operand of a layer
_MOST_PROBLEMS = 30
_NUMBERS = {
    "general": {},
    "architecture_presets": {
        "ArrayHeight": 1,
        "ArrayWidth": 1,
        "IfmapSramSzkB": 1,
        "FilterSramSzkB": 1,
        "OfmapSramSzkB": 1,
    },
    "layout": {"IfmapSRAMBankBandwidth": 1, "FilterSRAMBankBandwidth": 1},
}
_KNOWN: dict[str, tuple[str, ...]] = {
    "general": ("run_name",),
    "architecture_presets": (
        "ArrayHeight",
        "ArrayWidth",
        "IfmapSramSzkB",
        "FilterSramSzkB",
        "OfmapSramSzkB",
        "IfmapOffset",
        "FilterOffset",
        "OfmapOffset",
        "Bandwidth",
        "Dataflow",
        "MemoryBanks",
        "OnChipMemoryBanks",
        "OnChipMemoryBankPorts",
        "ReadRequestBuffer",
        "WriteRequestBuffer",
    ),
    "layout": (
        "IfmapCustomLayout",
        "IfmapSRAMBankBandwidth",
        "IfmapSRAMBankNum",
        "IfmapSRAMBankPort",
        "FilterCustomLayout",
        "FilterSRAMBankBandwidth",
        "FilterSRAMBankNum",
        "FilterSRAMBankPort",
    ),
    "sparsity": ("SparsitySupport", "SparseRep", "OptimizedMapping", "BlockSize", "RandomNumberGeneratorSeed"),
    "run_presets": ("InterfaceBandwidth", "UseRamulatorTrace"),
    "network_presets": ("TopologyCsvLoc",),
}
_WITHOUT_EFFECT = (
    "IfmapOffset",
    "OfmapOffset",
    "MemoryBanks",
    "OnChipMemoryBanks",
    "OnChipMemoryBankPorts",
    "BlockSize",
    "RandomNumberGeneratorSeed",
    "TopologyCsvLoc",
)
_REFUSED = {
    "OptimizedMapping": "row-wise sparsity with random patterns is not modelled",
}
_REPRESENTATIONS = ("ellpack_block", "csr", "csc")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration: array, SRAM in words (bytes), dataflow, and words a cycle of the interfaces.

    `calculate_bandwidth` is the stall-free mode that estimates the bandwidth an array asks for.  `layouts` says which
    operands (inputs, weights) lie in their SRAM by a layout, `banks` gives banks and ports of each; `dram_latencies`
    asks for latencies of the DRAM, whose requests wait in queues of `read_queue` and `write_queue` lines.
    """

    name: str
    rows: int
    columns: int
    ifmap_words: int
    filter_words: int
    ofmap_words: int
    dataflow: str
    calculate_bandwidth: bool
    ifmap_bandwidth: int
    filter_bandwidth: int
    ofmap_bandwidth: int
    sparse: bool
    representation: str
    without_effect: tuple[str, ...]
    layouts: tuple[bool, bool] = (False, False)
    banks: tuple[tuple[int, int], tuple[int, int]] = ((10, 2), (10, 2))
    dram_latencies: bool = False
    read_queue: int = 60
    write_queue: int = 60
    filter_offset: int = 10_000_000


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A layer as a product (m, k) x (k, n), with its convolution when it is one; `count` equal layers (depth-wise)."""

    name: str
    m: int
    n: int
    k: int
    count: int = 1
    sparsity: Sparsity = DENSE
    ifmap: tuple[int, int, int] | None = None
    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    ofmap: tuple[int, int] | None = None

    @property
    def ragged(self) -> bool:
        """Whether the last windows of a convolution reach over the edge of its input."""
        if not (self.ifmap and self.window and self.ofmap):
            return False
        return any((self.ofmap[axis] - 1) * self.stride[axis] + self.window[axis] > self.ifmap[axis] for axis in (0, 1))


def read_configuration(path: Path | str) -> Configuration:
    """A .cfg file; TierformError with every mistake and its line."""
    text = read_text(path)
    lines = _key_lines(text)
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as error:
        fail("a section such as [architecture_presets] is needed before the keys", file=str(path), line=error.lineno)
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        key = error.option if isinstance(error, configparser.DuplicateOptionError) else error.section
        fail("this stands twice", file=str(path), line=error.lineno, key=key)
    except configparser.ParsingError as error:
        number, found = error.errors[0] if error.errors else (None, None)
        fail("this is neither a section nor 'key: value'", file=str(path), line=number, value=str(found).strip("'\\n"))
    return _Reader(str(path), parser, lines).configuration()


def _key_lines(text: str) -> dict[tuple[str, str], int]:
    lines: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("[") and "]" in stripped:
            section = stripped[1 : stripped.index("]")]
            lines[(section, "")] = number
        elif stripped and stripped[0] not in "#;":
            key = stripped.replace("=", ":", 1).partition(":")[0].strip()
            lines[(section, key.lower())] = number
    return lines


class _Reader:
    """Collects the problems of one configuration."""

    def __init__(self, file: str, parser: configparser.ConfigParser, lines: dict[tuple[str, str], int]) -> None:
        self.file, self.parser, self.lines = file, parser, lines
        self.problems: list[Problem] = []
        self.values: dict[tuple[str, str], str] = {}
        for section in parser.sections():
            if section not in _KNOWN:
                self._problem("unknown section", section, "", value=section, choices=tuple(_KNOWN))
                continue
            known = {key.lower(): key for key in _KNOWN[section]}
            for key, value in parser.items(section):
                if key.lower() in known:
                    self.values[(section, known[key.lower()])] = value.strip()
                else:
                    self._problem("unknown key", section, key, choices=_KNOWN[section])

    def _problem(
        self,
        what: str,
        section: str,
        key: str,
        value: object = None,
        choices: tuple[str, ...] = (),
        fix: str | None = None,
    ) -> None:
        line = self.lines.get((section, key.lower())) or self.lines.get((section, ""))
        close = nearest(str(value) if value is not None else key, choices) if choices else None
        name = f"{section}.{key}" if key else section
        self.problems.append(
            Problem(what=what, file=self.file, line=line, key=name, value=value, nearest=close, fix=fix)
        )

    def number(self, section: str, key: str, default: int | None = None, least: int = 1) -> int:
        text = self.values.get((section, key))
        if text is None:
            if default is None:
                self._problem("this key is missing", section, key)
            return default if default is not None else 1
        value = _integer(text)
        if value is None:
            self._problem("a whole number is needed", section, key, value=text[:30])
            return 1
        if not least <= value <= (_MOST if least else 2**40):
            self._problem(f"must be between {least} and {_MOST if least else 2**40}", section, key, value=text[:30])
            return 1
        return value

    def flag(self, section: str, key: str) -> bool:
        text = self.values.get((section, key), "false")
        if text.lower() not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            self._problem("true or false is needed", section, key, value=text)
        return text.lower() in ("true", "yes", "on", "1")

    def _idle_keys(self, calculate: bool) -> tuple[str, ...]:
        """Keys of the file that change no figure of its reports."""
        idle = set(_WITHOUT_EFFECT)
        layouts = {part: self.flag("layout", f"{part}CustomLayout") and not calculate for part in ("Ifmap", "Filter")}
        for part, used in layouts.items():
            if not used:
                idle |= {f"{part}SRAMBankNum", f"{part}SRAMBankPort"}
        if not layouts["Filter"]:
            idle.add("FilterOffset")
        if calculate or not self.flag("run_presets", "UseRamulatorTrace"):
            idle |= {"ReadRequestBuffer", "WriteRequestBuffer"}
        return tuple(key for (_, key) in self.values if key in idle)

    def configuration(self) -> Configuration:
        preset = "architecture_presets"
        for section, key in self.values:
            if key in _REFUSED and self.flag(section, key):
                self._problem(_REFUSED[key], section, key, value=True, fix="Switch it off, or use SCALE-Sim for it.")
        dataflow = self.values.get((preset, "Dataflow"), "")
        if dataflow not in DATAFLOWS:
            self._problem("not a known dataflow", preset, "Dataflow", dataflow, DATAFLOWS, "Choose ws, os or is.")
        mode = self.values.get(("run_presets", "InterfaceBandwidth"), "CALC")
        if mode not in ("CALC", "USER"):
            self._problem("CALC or USER is needed", "run_presets", "InterfaceBandwidth", mode, ("CALC", "USER"))
        bandwidth = 1
        if mode == "USER":
            first = self.values.get((preset, "Bandwidth"), "").split(",")[0].strip()
            words = _integer(first)
            if words is None or not 1 <= words <= _MOST:
                what = f"a bandwidth of 1 to {_MOST} words a cycle is needed"
                self._problem(what, preset, "Bandwidth", first[:30])
            else:
                bandwidth = words
        sparse = self.flag("sparsity", "SparsitySupport")
        representation = self.values.get(("sparsity", "SparseRep"), "ellpack_block")
        if sparse and representation not in _REPRESENTATIONS:
            self._problem("unknown representation", "sparsity", "SparseRep", representation, _REPRESENTATIONS)
        if sparse and dataflow in ("os", "is"):
            self._problem("sparse weights need the weight-stationary dataflow", preset, "Dataflow", dataflow)
        found = Configuration(
            name=self.values.get(("general", "run_name"), "run"),
            rows=self.number(preset, "ArrayHeight"),
            columns=self.number(preset, "ArrayWidth"),
            ifmap_words=1024 * self.number(preset, "IfmapSramSzkB"),
            filter_words=1024 * self.number(preset, "FilterSramSzkB"),
            ofmap_words=1024 * self.number(preset, "OfmapSramSzkB"),
            dataflow=dataflow,
            calculate_bandwidth=mode == "CALC",
            ifmap_bandwidth=self.number("layout", "IfmapSRAMBankBandwidth", bandwidth),
            filter_bandwidth=self.number("layout", "FilterSRAMBankBandwidth", bandwidth),
            ofmap_bandwidth=bandwidth,
            sparse=sparse,
            representation=representation,
            layouts=(self.flag("layout", "IfmapCustomLayout"), self.flag("layout", "FilterCustomLayout")),
            banks=(
                (self.number("layout", "IfmapSRAMBankNum", 10), self.number("layout", "IfmapSRAMBankPort", 2)),
                (self.number("layout", "FilterSRAMBankNum", 10), self.number("layout", "FilterSRAMBankPort", 2)),
            ),
            dram_latencies=self.flag("run_presets", "UseRamulatorTrace"),
            read_queue=self.number(preset, "ReadRequestBuffer", 60),
            write_queue=self.number(preset, "WriteRequestBuffer", 60),
            filter_offset=self.number(preset, "FilterOffset", 10_000_000, least=0),
            without_effect=self._idle_keys(mode == "CALC"),
        )
        if self.problems:
            raise TierformError(self.problems)
        return found


def read_topology(path: Path | str, kind: str | None = None, *, sparse: bool = False) -> list[LayerShape]:
    """The layers of a topology file: products (`gemm`) or convolutions (`conv`); told by the columns when not given."""
    text = read_text(path)
    rows = [(number, [cell.strip() for cell in line.split(",")]) for number, line in enumerate(text.splitlines(), 1)]
    rows = [(number, cells[:-1] if cells[-1] == "" else cells) for number, cells in rows if any(cells)]
    if len(rows) < 2:
        fail("a head line and at least one layer are needed", file=str(path))
    if len(rows) > MAX_LAYERS:
        fail(f"{len(rows)} layers; at most {MAX_LAYERS} are read", file=str(path))
    if kind is None:
        kind = "gemm" if len(rows[1][1]) <= 5 else "conv"
    problems: list[Problem] = []
    layers = []
    for number, cells in rows[1:]:
        try:
            layers.append((_gemm if kind == "gemm" else _convolution)(cells, sparse))
        except ValueError as error:
            problems.append(Problem(str(error), str(path), number, None, ", ".join(cells)))
    if len(problems) > _MOST_PROBLEMS:
        rest = len(problems) - _MOST_PROBLEMS
        problems = [*problems[:_MOST_PROBLEMS], Problem(f"and {rest} more rows like these", str(path))]
    if problems:
        raise TierformError(problems)
    return layers


def _integer(text: str) -> int | None:
    """A whole number in plain digits; None for anything else."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def _whole(cells: list[str], names: tuple[str, ...]) -> list[int]:
    values = []
    for name, cell in zip(names, cells, strict=True):
        value = _integer(cell)
        if value is None:
            raise ValueError(f"{name} must be a whole number, not {cell[:30]!r}")
        if not 1 <= value <= _MOST:
            raise ValueError(f"{name} must be between 1 and {_MOST}, not {cell[:30]}")
        values.append(value)
    return values


def _ratio(cells: list[str], sparse: bool) -> Sparsity:
    if not cells:
        return DENSE
    parts = [_integer(part.strip()) for part in cells[0].split(":")]
    if len(parts) != 2 or parts[0] is None or parts[1] is None:
        raise ValueError(f"the sparsity is N:M, not {cells[0][:30]!r}")
    kept, block = parts[0], parts[1]
    if not 1 <= kept <= block <= _MOST:
        raise ValueError(f"of M weights at least one and at most M are kept, not {kept} of {block}")
    return Sparsity(kept, block) if sparse else DENSE


def _check_elements(*counts: int) -> None:
    if max(counts) > _MOST_ELEMENTS:
        raise ValueError(f"an operand has {max(counts):.3g} elements; at most {_MOST_ELEMENTS:.3g} are simulated")


def _gemm(cells: list[str], sparse: bool) -> LayerShape:
    if not 4 <= len(cells) <= 5:
        raise ValueError(f"a product has 4 entries (name, M, N, K) and perhaps N:M, not {len(cells)}")
    m, n, k = _whole(cells[1:4], ("M", "N", "K"))
    _check_elements(m * k, k * n, m * n)
    return LayerShape(cells[0], m, n, k, sparsity=_ratio(cells[4:], sparse))


def _convolution(cells: list[str], sparse: bool) -> LayerShape:
    if not 8 <= len(cells) <= 10:
        raise ValueError(
            "a convolution has 8 entries (name, IFMAP height and width, filter height and width, channels, filters, "
            f"stride) and perhaps a second stride and N:M, not {len(cells)}"
        )
    # A whole number behind the stride is the stride along the width.
    strides = cells[7:9] if len(cells) > 8 and ":" not in cells[8] else cells[7:8]
    if len(cells) > 8 + len(strides):
        raise ValueError(f"{cells[-1][:30]!r} has no meaning here")
    names = ("IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters")
    height, width, window_h, window_w, channels, filters = _whole(cells[1:7], names)
    down, across = (2 * _whole(strides, ("stride", "second stride")[: len(strides)]))[:2]
    if window_h > height or window_w > width:
        raise ValueError("the filter is larger than the IFMAP")
    count = channels if "DP" in cells[0] else 1
    channels = 1 if "DP" in cells[0] else channels
    out_h, out_w = -(-(height - window_h + down) // down), -(-(width - window_w + across) // across)
    depth = window_h * window_w * channels
    _check_elements(out_h * out_w * depth, depth * filters, out_h * out_w * filters)
    return LayerShape(
        name=cells[0],
        m=out_h * out_w,
        n=filters,
        k=window_h * window_w * channels,
        count=count,
        sparsity=_ratio(cells[7 + len(strides) :], sparse),
        ifmap=(height, width, channels),
        window=(window_h, window_w),
        stride=(down, across),
        ofmap=(out_h, out_w),
    )
