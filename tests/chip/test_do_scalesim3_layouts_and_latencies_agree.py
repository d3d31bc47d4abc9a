"""SCALE-Sim 3's bank conflicts, DRAM latencies and second strides, against figures of SCALE-Sim itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tierform.cli.main import main
from tierform.compat.scalesim.accounting import scale_sim
from tierform.compat.scalesim.buffers import Memory
from tierform.compat.scalesim.dram import read_latencies, simulated_latencies
from tierform.compat.scalesim.files import Configuration, LayerShape, read_configuration, read_topology
from tierform.compat.scalesim.layout import read_layout
from tierform.errors import TierformError
from tierform.memory.cycle import CycleMemory
from tierform.memory.standard import load_dram

CONFIGURATION = """[general]
run_name = banks
[architecture_presets]
ArrayHeight: 8
ArrayWidth: 8
IfmapSramSzkB: 1
FilterSramSzkB: 1
OfmapSramSzkB: 1
FilterOffset: 10000000
Dataflow : {dataflow}
Bandwidth : 10
ReadRequestBuffer: 8
WriteRequestBuffer: 8
[layout]
IfmapCustomLayout: {layout}
IfmapSRAMBankBandwidth: 16
IfmapSRAMBankNum: 4
IfmapSRAMBankPort: 1
FilterCustomLayout: {layout}
FilterSRAMBankBandwidth: 16
FilterSRAMBankNum: 4
FilterSRAMBankPort: 1
[run_presets]
InterfaceBandwidth: USER
UseRamulatorTrace: {latencies}
"""
PRODUCTS = "Layer,M,N,K,\nG1,20,30,40,\nG2,5,9,100,\n"
PRODUCT_LAYOUT = "a head line\nG1,2,8,1,4,1,4,2,1,0,5,4,3,3,0,1,2,7,4,5,6,\n"
WINDOWS = "Layer,IH,IW,FH,FW,C,F,S,\nA, 10, 10, 3, 3, 4, 12, 1,\nB, 9, 17, 3, 3, 8, 6, 2,\n"
WINDOW_LAYOUT = "a head line\nA, 2, 2, 1, 1, 4, 4, 0, 1, 2, 4, 5, 3, 3, 2, 1, 0, 4, 5, 6, 7,\n"


def _read(tmp_path: Path, text: str, **choices: object) -> tuple[Configuration, list[LayerShape]]:
    (tmp_path / "c.cfg").write_text(CONFIGURATION.format(**choices))
    (tmp_path / "t.csv").write_text(text)
    return read_configuration(tmp_path / "c.cfg"), read_topology(tmp_path / "t.csv")


# "Total Cycles" and "Stall Cycles" of SCALE-Sim 3 for these files (both layers), and the DRAM words of the first.
@pytest.mark.parametrize(
    ("dataflow", "topology", "layout", "cycles", "stalls", "words"),
    [
        ("os", PRODUCTS, PRODUCT_LAYOUT, (155866, 12161), (155219, 11934), (284160, 2418688, 600)),
        ("ws", PRODUCTS, PRODUCT_LAYOUT, (33444, 9133), (32605, 8432), (519168, 259584, 3000)),
        ("is", PRODUCTS, PRODUCT_LAYOUT, (70593, 15026), (69814, 14624), (26624, 1095680, 3000)),
        ("os", WINDOWS, WINDOW_LAYOUT, (2255, 89506), (1456, 89163), None),
        ("ws", WINDOWS, WINDOW_LAYOUT, (2328, 21303), (1469, 20818), None),
        ("is", WINDOWS, WINDOW_LAYOUT, (2727, 12735), (1368, 11728), None),
    ],
)
def test_bank_conflicts_of_a_layout_give_scale_sims_own_cycles(
    tmp_path: Path,
    dataflow: str,
    topology: str,
    layout: str,
    cycles: tuple[int, int],
    stalls: tuple[int, int],
    words: tuple[int, int, int] | None,
) -> None:
    read, layers = _read(tmp_path, topology, dataflow=dataflow, layout=True, latencies=False)
    (tmp_path / "l.csv").write_text(layout)
    found = [scale_sim(layer, read, Memory(read_layout(tmp_path / "l.csv"))).figures for layer in layers]
    assert tuple(figures["Total Cycles"] for figures in found) == cycles
    assert tuple(figures["Stall Cycles"] for figures in found) == stalls
    if words:
        names = ("DRAM IFMAP Reads", "DRAM Filter Reads", "DRAM OFMAP Writes")
        assert tuple(found[0][name] for name in names) == words


# The same with latencies of 1 + (7 i mod 40) cycles for line i: 400 lines of inputs, 300 of weights, 200 of outputs.
@pytest.mark.parametrize(
    ("dataflow", "cycles", "stalls", "stops"),
    [
        ("os", (1306, 379), (659, 152), (1145, 1054, 1371)),
        ("ws", (1170, 773), (331, 72), (1145, 988, 1212)),
        ("is", (866, 474), (87, 72), (181, 820, 908)),
    ],
)
def test_latencies_of_the_dram_give_scale_sims_own_cycles(
    tmp_path: Path, dataflow: str, cycles: tuple[int, int], stalls: tuple[int, int], stops: tuple[int, int, int]
) -> None:
    read, layers = _read(tmp_path, PRODUCTS, dataflow=dataflow, layout=False, latencies=True)
    for layer in range(2):
        for name, count in (("ifmap", 400), ("filter", 300), ("ofmap", 200)):
            np.save(tmp_path / f"_{name}File{layer}.npy", 1 + 7 * np.arange(count) % 40)
    found = [
        scale_sim(layer, read, Memory(latencies=read_latencies(tmp_path, number))).figures
        for number, layer in enumerate(layers)
    ]
    assert tuple(figures["Total Cycles"] for figures in found) == cycles
    assert tuple(figures["Stall Cycles"] for figures in found) == stalls
    names = ("DRAM IFMAP Stop Cycle", "DRAM Filter Stop Cycle", "DRAM OFMAP Stop Cycle")
    assert tuple(found[0][name] for name in names) == stops


def test_a_slower_dram_never_makes_the_array_faster(tmp_path: Path) -> None:
    read, layers = _read(tmp_path, PRODUCTS, dataflow="ws", layout=False, latencies=True)
    ideal = scale_sim(layers[0], read).figures["Total Cycles"]
    taken = []
    for clock in (1, 4):
        # Timings four times as long, of the same array clock.
        spec = load_dram("ddr4", nCL=17 * clock, nRCD=17 * clock, nRP=17 * clock, nRAS=39 * clock)
        lines = simulated_latencies(layers[0], read, CycleMemory(spec))
        assert all(np.all(line > 0) for line in lines)
        taken.append(scale_sim(layers[0], read, Memory(latencies=lines)).figures["Total Cycles"])
    assert ideal < taken[0] < taken[1]


def test_every_line_of_every_fetch_has_a_latency(tmp_path: Path) -> None:
    read, layers = _read(tmp_path, PRODUCTS, dataflow="os", layout=False, latencies=True)
    lines = simulated_latencies(layers[0], read, CycleMemory(load_dram("hbm2")))
    # The first fill is half of a KiB in lines of 16 words, each later fetch as much.
    assert lines[0].size % 32 == 0
    assert lines[1].size % 32 == 0
    # 20 x 30 outputs in lines of 10; a drain may begin with a line that is not full.
    assert 60 <= lines[2].size <= 62


def test_a_ninth_cell_is_the_second_stride_or_the_sparsity(tmp_path: Path) -> None:
    def layer(cells: str, sparse: bool = False) -> LayerShape:
        (tmp_path / "t.csv").write_text(f"a head line\nc,9,17,3,3,2,4,{cells},\n")
        return read_topology(tmp_path / "t.csv", "conv", sparse=sparse)[0]

    # 7 rows by (17 - 3) / 1 + 1 = 15 columns; with a second stride of 2 by 8 columns.
    assert (layer("1").m, layer("1").stride) == (105, (1, 1))
    assert (layer("1,2").m, layer("1,2").stride) == (56, (1, 2))
    assert layer("1,2:4", sparse=True).sparsity.kept == 2
    both = layer("1,2,2:4", sparse=True)
    assert (both.m, both.sparsity.kept, both.sparsity.block) == (56, 2, 4)
    for wrong in ("1,2,3", "1,2,2:4,5", "1,x", "1,0", "1,2:4,2"):
        with pytest.raises(TierformError):
            layer(wrong)


@pytest.mark.parametrize("cell", ["garbage", "4", "2:1", "0:4", "2:4:8", "²:4"])
def test_a_fifth_cell_of_a_product_is_its_sparsity_or_refused(tmp_path: Path, cell: str) -> None:
    (tmp_path / "t.csv").write_text(f"name,M,N,K,x,\ng,64,64,64,{cell},\n")
    with pytest.raises(TierformError):
        read_topology(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "row", ["G,9223372036854775807,64,256,", "G,１,1000,512,", "G,16777217,1,1,", "G,16777216,16777216,1,"]
)
def test_sizes_are_bounded(tmp_path: Path, row: str) -> None:
    (tmp_path / "t.csv").write_text(f"Layer,M,N,K,\n{row}\n")
    with pytest.raises(TierformError):
        read_topology(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("head\n", "at least one layer"),
        ("head\nA,1,2,3,\n", "20 numbers"),
        ("head\n" + PRODUCT_LAYOUT.split("\n")[1].replace("7,4,5,6", "7,4,5,5"), "name each axis once"),
        ("head\n" + PRODUCT_LAYOUT.split("\n")[1].replace("G1,2,", "G1,0,"), "at least 1"),
        ("head\n" + PRODUCT_LAYOUT.split("\n")[1].replace("G1,2,", "G1,x,"), "whole number"),
    ],
)
def test_a_wrong_layout_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(TierformError, match=words):
        read_layout(tmp_path / "l.csv")


def test_what_a_layout_or_a_dram_cannot_do_is_said(tmp_path: Path) -> None:
    read, layers = _read(tmp_path, PRODUCTS, dataflow="os", layout=True, latencies=False)
    with pytest.raises(TierformError, match="layout file"):
        scale_sim(layers[0], read)
    (tmp_path / "l.csv").write_text(PRODUCT_LAYOUT)
    narrow = replace(read, ifmap_bandwidth=8)
    with pytest.raises(TierformError, match="multiply to at most the 8 words"):
        scale_sim(layers[0], narrow, Memory(read_layout(tmp_path / "l.csv")))
    uneven = replace(read, banks=((3, 1), (4, 1)))
    with pytest.raises(TierformError, match="multiple of its banks"):
        scale_sim(layers[0], uneven, Memory(read_layout(tmp_path / "l.csv")))


def test_the_command_runs_layouts_and_drams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _read(tmp_path, PRODUCTS, dataflow="ws", layout=True, latencies=True)
    (tmp_path / "l.csv").write_text(PRODUCT_LAYOUT)
    files = ["systolic", "--compat", "-c", str(tmp_path / "c.cfg"), "-t", str(tmp_path / "t.csv")]
    with pytest.raises(SystemExit) as stop:
        main([*files, "--layout", str(tmp_path / "l.csv")])
    assert stop.value.code == 2
    assert "--dram" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*files, "--layout", str(tmp_path / "l.csv"), "--dram", "ddr4"])
    assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        main([*files[:1], *files[2:], "--dram", "ddr4"])
    assert stop.value.code == 2
