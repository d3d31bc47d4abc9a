"""SCALE-Sim's configuration (.cfg) and topology (.csv) files, read and checked; every mistake with its line.

Versions 2 and 3 are read.  What this project does not model (DRAM traces, custom bank layouts, row-wise random
sparsity) is refused by name when it is switched on.  Keys that change no figure of the reports (address offsets,
request buffers, bank counts without a layout) are accepted and listed.
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from tierform.chip.systolic.folds import DATAFLOWS, DENSE, Sparsity
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_text

MAX_LAYERS = 100_000
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
    "FilterOffset",
    "OfmapOffset",
    "MemoryBanks",
    "ReadRequestBuffer",
    "WriteRequestBuffer",
    "IfmapSRAMBankNum",
    "IfmapSRAMBankPort",
    "FilterSRAMBankNum",
    "FilterSRAMBankPort",
    "BlockSize",
    "RandomNumberGeneratorSeed",
    "TopologyCsvLoc",
)
_REFUSED = {
    "UseRamulatorTrace": "DRAM latencies from a trace are not modelled",
    "IfmapCustomLayout": "bank conflicts of a custom layout are not modelled",
    "FilterCustomLayout": "bank conflicts of a custom layout are not modelled",
    "OptimizedMapping": "row-wise sparsity with random patterns is not modelled",
}
_REPRESENTATIONS = ("ellpack_block", "csr", "csc")


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration: array, SRAM in words (bytes), dataflow, and words a cycle of the interfaces.

    `calculate_bandwidth` is the stall-free mode that estimates the bandwidth an array asks for.
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
        fail("this stands twice", file=str(path), line=error.lineno, key=getattr(error, "option", error.section))
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
        self.problems.append(Problem(what, self.file, line, name, value, close, fix))

    def number(self, section: str, key: str, default: int | None = None) -> int:
        text = self.values.get((section, key))
        if text is None:
            if default is None:
                self._problem("this key is missing", section, key)
            return default or 1
        try:
            value = int(text)
        except ValueError:
            self._problem("a whole number is needed", section, key, value=text)
            return 1
        if value < 1:
            self._problem("must be at least 1", section, key, value=value)
            return 1
        return value

    def flag(self, section: str, key: str) -> bool:
        text = self.values.get((section, key), "false")
        if text.lower() not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            self._problem("true or false is needed", section, key, value=text)
        return text.lower() in ("true", "yes", "on", "1")

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
            if not first.isdigit() or int(first) < 1:
                self._problem("a bandwidth of at least one word a cycle is needed", preset, "Bandwidth", first)
            else:
                bandwidth = int(first)
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
            without_effect=tuple(key for (_, key) in self.values if key in _WITHOUT_EFFECT),
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


def _whole(cells: list[str], names: tuple[str, ...]) -> list[int]:
    values = []
    for name, cell in zip(names, cells, strict=True):
        try:
            value = int(cell)
        except ValueError:
            raise ValueError(f"{name} must be a whole number, not {cell!r}") from None
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
        values.append(value)
    return values


def _ratio(cells: list[str], sparse: bool) -> Sparsity:
    if not cells or not sparse:
        return DENSE
    parts = cells[0].split(":")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise ValueError(f"the sparsity is N:M, not {cells[0]!r}")
    kept, block = int(parts[0]), int(parts[1])
    if not 1 <= kept <= block:
        raise ValueError(f"of M weights at least one and at most M are kept, not {kept} of {block}")
    return Sparsity(kept, block)


def _gemm(cells: list[str], sparse: bool) -> LayerShape:
    if not 4 <= len(cells) <= 5:
        raise ValueError(f"a product has 4 entries (name, M, N, K) and perhaps N:M, not {len(cells)}")
    m, n, k = _whole(cells[1:4], ("M", "N", "K"))
    return LayerShape(cells[0], m, n, k, sparsity=_ratio(cells[4:], sparse))


def _convolution(cells: list[str], sparse: bool) -> LayerShape:
    if not 8 <= len(cells) <= 9:
        raise ValueError(
            "a convolution has 8 entries (name, IFMAP height and width, filter height and width, channels, filters, "
            f"stride) and perhaps N:M, not {len(cells)}"
        )
    names = ("IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters", "stride")
    height, width, window_h, window_w, channels, filters, stride = _whole(cells[1:8], names)
    if window_h > height or window_w > width:
        raise ValueError("the filter is larger than the IFMAP")
    count = channels if "DP" in cells[0] else 1
    channels = 1 if "DP" in cells[0] else channels
    out_h, out_w = -(-(height - window_h + stride) // stride), -(-(width - window_w + stride) // stride)
    return LayerShape(
        cells[0],
        out_h * out_w,
        filters,
        window_h * window_w * channels,
        count,
        _ratio(cells[8:], sparse),
        (height, width, channels),
        (window_h, window_w),
        (stride, stride),
        (out_h, out_w),
    )
