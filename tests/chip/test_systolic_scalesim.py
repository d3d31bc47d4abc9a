"""Are SCALE-Sim's files read rightly, are its figures found again, and are its buffers rebuilt rightly?"""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tierform
from tierform.chip.systolic.folds import DENSE, Sparsity, cycles
from tierform.compat.scalesim.accounting import scale_sim
from tierform.compat.scalesim.files import Configuration, LayerShape, read_configuration, read_topology
from tierform.compat.scalesim.hardware import hardware
from tierform.errors import TierformError
from tierform.validation.systolic import ledger

CONFIGURATION = """[general]
run_name = example
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 16
IfmapSramSzkB: 64
FilterSramSzkB: 32
OfmapSramSzkB: 16
IfmapOffset: 0
Bandwidth : 12
Dataflow : {dataflow}
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 8
FilterSRAMBankBandwidth: 4
[sparsity]
SparsitySupport : {sparse}
[run_presets]
InterfaceBandwidth: {mode}
"""


def configuration(rows, columns, dataflow, words=0, sram=(4, 4, 2), sparse=False):
    sizes = [1024 * size for size in sram]
    each = words or 10
    return Configuration("t", rows, columns, *sizes, dataflow, not words, each, each, each, sparse, "csr", ())


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_configuration_is_read_with_each_bandwidth(tmp_path):
    path = write(tmp_path, "a.cfg", CONFIGURATION.format(dataflow="ws", sparse="false", mode="USER"))
    read = read_configuration(path)
    assert (read.rows, read.columns, read.dataflow, read.calculate_bandwidth) == (32, 16, "ws", False)
    assert (read.ifmap_words, read.filter_words, read.ofmap_words) == (65536, 32768, 16384)
    assert (read.ifmap_bandwidth, read.filter_bandwidth, read.ofmap_bandwidth) == (8, 4, 12)
    assert read.without_effect == ("IfmapOffset",)


def test_every_mistake_of_a_configuration_is_told_with_its_line(tmp_path):
    text = CONFIGURATION.format(dataflow="sw", sparse="false", mode="FAST").replace("ArrayHeight: 32", "ArrayHeight: 0")
    text = text.replace("IfmapCustomLayout: False", "IfmapCustomLayout: maybe").replace("ArrayWidth", "ArrayWidht")
    with pytest.raises(TierformError) as caught:
        read_configuration(write(tmp_path, "a.cfg", text))
    found = {(problem.key.rpartition(".")[2], problem.line) for problem in caught.value.problems}
    assert found >= {("ArrayHeight", 4), ("ArrayWidht", 5), ("Dataflow", 11), ("IfmapCustomLayout", 13)}
    assert any(problem.nearest == "ArrayWidth" for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "line"),
    [("nothing", 1), ("[general]\nrun_name = a\nrun_name = b\n", 3), ("[general]\nno colon here\n", 2)],
)
def test_malformed_configurations_are_refused_with_a_line(tmp_path, text, line):
    with pytest.raises(TierformError) as caught:
        read_configuration(write(tmp_path, "a.cfg", text))
    assert caught.value.problems[0].line == line


def test_topologies_are_told_apart_and_depthwise_layers_counted(tmp_path):
    gemm = read_topology(write(tmp_path, "g.csv", "Layer,M,N,K,\na, 4,5,6,\n\nb,1,2,3\n"))
    assert [(layer.m, layer.n, layer.k) for layer in gemm] == [(4, 5, 6), (1, 2, 3)]
    head = "Layer, H, W, h, w, C, F, S,\n"
    conv = read_topology(write(tmp_path, "c.csv", head + "one,9,7,3,3,4,8,2,\nDPone,9,9,3,3,4,1,1,\n"))
    assert (conv[0].m, conv[0].n, conv[0].k, conv[0].count) == (4 * 3, 8, 36, 1)
    assert (conv[1].m, conv[1].k, conv[1].count) == (49, 9, 4)


def test_bad_topology_rows_are_told_with_their_lines(tmp_path):
    text = "Layer,M,N,K,S,\na,1,2,\nb,1,x,3,\nc,1,0,3,\nd,1,1,1,5:4,\n"
    with pytest.raises(TierformError) as caught:
        read_topology(write(tmp_path, "g.csv", text), "gemm", sparse=True)
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5]


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200))
def test_no_text_makes_the_readers_fail_otherwise(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("any"), "a", text)
    for reader in (read_configuration, read_topology):
        with contextlib.suppress(TierformError):
            reader(path)


def test_every_row_of_scale_sim_is_found_again():
    found = ledger()
    assert found.passed, [str(point) for point in found.failures]
    assert sum(point.quantity == "Total Cycles" for point in found.points) >= 41


def test_a_component_is_charged_the_cycles_of_the_hardwares_accounting():
    """Where no bandwidth bounds them; and no more DRAM reads than SCALE-Sim's."""
    points = {(point.case, point.quantity): point for point in ledger().points}
    cases = {
        case for case, quantity in points if quantity == "cycles as charged" and points[case, "Stall Cycles"].ours == 0
    }
    assert len(cases) > 30
    for case in cases:
        assert points[case, "cycles as charged"].ours == pytest.approx(points[case, "hardware cycles"].ours)
    reads = [point for (_, quantity), point in points.items() if quantity == "DRAM reads as charged"]
    assert len(reads) > 20 and all(point.ours <= point.reference for point in reads)


def test_the_ledger_can_fail(tmp_path):
    table = Path(tierform.__file__).parent / "validation" / "tables" / "systolic_scale_sim.csv"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    m, n, k = first["layer"].split("x")
    names = ["gemm", "M", "N", "K", "array", "dataflow", "mode", "bw"]
    values = ["x", m, n, k, first["rows"], first["dataflow"], "CALC", ""]
    from tierform.validation.systolic import _FIGURES

    for name, (column, _) in _FIGURES.items():
        names.append(column)
        values.append(first[name])
    write(tmp_path, "scale-sim-v3.csv", ",".join(names) + "\n" + ",".join(values) + "\n")
    assert ledger(tmp_path).passed
    values[8] = str(float(values[8]) + 1)
    write(tmp_path, "scale-sim-v3.csv", ",".join(names) + "\n" + ",".join(values) + "\n")
    assert not ledger(tmp_path).passed


def demand(layer, rows, columns, dataflow, operand):
    """Element asked for by each port in each line, as nested lists of (row, column) or None: slow and plain."""
    m, n, k = layer.m, layer.n, layer.k
    lines = []
    outer, inner = {"ws": (n, k), "os": (n, m), "is": (m, k)}[dataflow]
    for left in range(0, outer, columns):
        for top in range(0, inner, rows):
            wide, high = min(columns, outer - left), min(rows, inner - top)
            steps = {"ws": m, "os": k, "is": n}[dataflow]
            length = rows + columns + steps - 2 + (0 if dataflow == "os" else rows)
            for line in range(length):
                asked = []
                streamed = (dataflow, operand) in (("ws", 0), ("is", 1), ("os", 0), ("os", 1))
                lead = 0 if dataflow == "os" else rows
                if streamed:
                    ports, base = (wide, left) if (dataflow, operand) == ("os", 1) else (high, top)
                    for port in range(ports):
                        step = line - lead - port
                        if 0 <= step < steps:
                            transposed = (dataflow, operand) in (("is", 1), ("os", 0))
                            asked.append((base + port, step) if transposed else (step, base + port))
                elif 0 <= rows - 1 - line < high:
                    row = top + rows - 1 - line
                    asked = [(left + p, row) if dataflow == "is" else (row, left + p) for p in range(wide)]
                lines.append(asked)
    return lines


def estimated_reads(lines, set_size):
    """The stall-free read buffer with Python sets: elements fetched, and the cycles of the first and last fetch."""
    sets, current, window, events, first = [], set(), 0, [], None
    reads = 0
    for cycle, asked in enumerate(lines):
        if asked and first is None:
            first = cycle
        for element in asked:
            if any(element in held for held in sets[window:]) or element in current:
                continue
            current.add(element)
            reads += 1
            if len(current) == set_size:
                sets.append(current)
                current = set()
                if len(sets) == window + 50:
                    window += 50
                    events.append(cycle)
    if events:
        return (
            reads,
            first - 2 - -(-(50 * set_size) // 10) + 2,
            (events[-2] if len(events) > 1 else first - 2, events[-1]),
        )
    count = len(sets) + (1 if current else 0)
    return reads, -count * set_size // 10, (None, None)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@settings(max_examples=12, deadline=None)
@given(
    m=st.integers(1, 70), n=st.integers(1, 70), k=st.integers(1, 70), array=st.sampled_from([(4, 4), (8, 3), (5, 16)])
)
def test_estimated_reads_follow_a_plain_buffer_of_sets(dataflow, m, n, k, array):
    layer = LayerShape("x", m, n, k)
    figures = scale_sim(layer, configuration(*array, dataflow, sram=(1, 1, 64))).figures
    for operand, name in enumerate(("IFMAP", "Filter")):
        reads, start, (_, stop) = estimated_reads(demand(layer, *array, dataflow, operand), 10)
        assert figures[f"DRAM {name} Reads"] == reads
        assert figures[f"DRAM {name} Start Cycle"] == start
        if stop is not None:
            assert figures[f"DRAM {name} Stop Cycle"] == stop + 1


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 60),
    n=st.integers(1, 60),
    k=st.integers(1, 60),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    words=st.integers(1, 40),
)
def test_a_convolution_of_one_by_one_is_its_product(m, n, k, dataflow, words):
    product = LayerShape("p", m, n, k)
    window = LayerShape("c", m, n, k, 1, DENSE, (m, 1, k), (1, 1), (1, 1), (m, 1))
    for given_words in (0, words):
        chosen = configuration(8, 4, dataflow, given_words, sram=(1, 1, 1))
        assert scale_sim(product, chosen).figures == scale_sim(window, chosen).figures


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 60), n=st.integers(1, 60), k=st.integers(1, 60), dataflow=st.sampled_from(["ws", "os", "is"]))
def test_more_bandwidth_never_stalls_more_and_enough_never_stalls(m, n, k, dataflow):
    layer = LayerShape("x", m, n, k)
    narrow, wide = (hardware(layer, configuration(8, 4, dataflow, words)).figures for words in (1, 1_000_000))
    assert wide["Stall Cycles"] == 0 <= narrow["Stall Cycles"]
    assert wide["Total Cycles"] == cycles(dataflow, m, n, k, 8, 4)
    moved = narrow["DRAM IFMAP Reads"], narrow["DRAM Filter Reads"], narrow["DRAM OFMAP Writes"]
    assert moved >= (m * k, k * n, m * n)
    assert narrow["Total Cycles"] >= max(moved)


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 200),
    n=st.integers(1, 200),
    k=st.integers(1, 200),
    arrays=st.integers(1, 9),
    dataflow=st.sampled_from(["ws", "os", "is"]),
)
def test_several_arrays_share_a_layer(m, n, k, arrays, dataflow):
    layer, chosen = LayerShape("x", m, n, k), configuration(8, 4, dataflow)
    one, many = (hardware(layer, chosen, "pipelined", count).figures for count in (1, arrays))
    assert many["Total Cycles"] <= one["Total Cycles"]
    assert 0 < many["Overall Util %"] <= 100 + 1e-9
    assert many["Compute Util %"] == pytest.approx(many["Overall Util %"])
    assert many["SRAM OFMAP Writes"] >= m * n * (1 - 1e-12)


def test_large_sram_fetches_each_word_once():
    layer = LayerShape("x", 300, 200, 100)
    for dataflow in ("ws", "os", "is"):
        figures = hardware(layer, configuration(16, 16, dataflow, sram=(512, 512, 512))).figures
        assert figures["DRAM IFMAP Reads"] == 30000
        assert figures["DRAM Filter Reads"] == 20000
        assert figures["DRAM OFMAP Writes"] == 60000


def test_sparse_weights_pack_the_folds():
    dense, sparse = LayerShape("x", 64, 64, 256), LayerShape("x", 64, 64, 256, sparsity=Sparsity(1, 4))
    chosen = configuration(32, 32, "ws", sram=(64, 64, 64), sparse=True)
    one, quarter = (scale_sim(layer, chosen).figures for layer in (dense, sparse))
    assert (one["Total Cycles"] + 1) == 4 * (quarter["Total Cycles"] + 1)
    assert quarter["SRAM Filter Reads"] * 4 == one["SRAM Filter Reads"]
    assert quarter["Filter Metadata Storage"] > 0


def test_command_prints_the_reports_and_refuses_with_code_2(tmp_path, capsys):
    from tierform.cli.main import main

    cfg = write(tmp_path, "a.cfg", CONFIGURATION.format(dataflow="os", sparse="false", mode="CALC"))
    csv = write(tmp_path, "g.csv", "Layer,M,N,K,\nqkv,64,48,32,\n")
    with pytest.raises(SystemExit) as left:
        main(
            [
                "systolic",
                "-c",
                str(cfg),
                "-t",
                str(csv),
                "--compat",
                "-p",
                str(tmp_path / "r"),
                "--json",
                str(tmp_path / "o.json"),
            ]
        )
    assert left.value.code == 0
    report = (tmp_path / "r" / "COMPUTE_REPORT.csv").read_text().splitlines()
    assert report[0].startswith("LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %")
    assert report[1].split(", ")[2] == str(3 * 2 * (32 + 16 + 32 - 2) - 1)
    assert '"accounting": "scale-sim-v3"' in (tmp_path / "o.json").read_text()
    assert "qkv" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["systolic", "-c", str(tmp_path / "none.cfg"), "-t", str(csv)])
    assert left.value.code == 2
    assert "no such file" in capsys.readouterr().err


def test_a_layer_too_large_to_walk_is_refused_by_name_and_counted_by_formulas():
    large, chosen = LayerShape("large", 40_000, 40_000, 40_000), configuration(32, 32, "ws")
    with pytest.raises(TierformError, match="large"):
        scale_sim(large, chosen)
    assert hardware(large, chosen).figures["Total Cycles"] == cycles("ws", 40_000, 40_000, 40_000, 32, 32)


def test_batch_equals_the_plain_formulas():
    from tierform.chip.systolic.batch import gemm_costs

    rng = np.random.default_rng(7)
    m, n, k = (rng.integers(1, 600, 300) for _ in range(3))
    for dataflow in ("ws", "os", "is", "best"):
        for overlap in ("serial", "double-buffered", "pipelined"):
            found = gemm_costs(m, n, k, 16, 24, dataflow, overlap)["cycles"]
            flows = ("ws", "os", "is") if dataflow == "best" else (dataflow,)
            for i in range(m.size):
                assert found[i] == min(cycles(f, int(m[i]), int(n[i]), int(k[i]), 16, 24, overlap) for f in flows)
    with pytest.raises(TierformError):
        gemm_costs([1, 2], [1], [1], 16, 16)


@pytest.mark.parametrize("arrays", [1, 4])
def test_several_arrays_report_what_sparse_weights_take(tmp_path, capsys, arrays):
    from tierform.cli.main import main

    # 64 x 32 weights of which one in four rows is kept: 16 x 32 = 512 words, and two bits of place each, 32 words.
    text = CONFIGURATION.format(dataflow="ws", sparse="true", mode="CALC").replace("[sparsity]", "[sparsity]\nX")
    text = text.replace("X\n", "SparseRep : ellpack_block\n")
    cfg = write(tmp_path, "a.cfg", text)
    csv = write(tmp_path, "g.csv", "Layer,M,N,K,S,\nq,48,32,64,1:4,\n")
    with pytest.raises(SystemExit) as left:
        main(["systolic", "-c", str(cfg), "-t", str(csv), "--arrays", str(arrays), "-p", str(tmp_path / "r")])
    assert left.value.code == 0
    head, row = (tmp_path / "r" / "SPARSE_REPORT.csv").read_text().splitlines()
    found = dict(zip(head.split(", "), row.split(", "), strict=True))
    assert float(found["Original Filter Storage"]) == 64 * 32
    assert float(found["Filter Metadata Storage"]) == 512 * 2 / 32
    assert float(found["New Storage (Filter+Metadata)"]) == 512 + 32
    assert "Avg FILTER Metadata SRAM BW" in (tmp_path / "r" / "BANDWIDTH_REPORT.csv").read_text()
    assert "sparse weights, words" in capsys.readouterr().out
