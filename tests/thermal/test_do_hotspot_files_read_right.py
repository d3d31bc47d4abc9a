"""Are HotSpot's files read as that tool reads them, and are mistakes told with file and line?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tierform.cli.main import main
from tierform.compat.hotspot import files
from tierform.compat.hotspot import run as hotspot
from tierform.errors import TierformError

FLOORPLAN = "# name w h x y\nleft\t0.004\t0.008\t0.0\t0.0\nright 0.004 0.008 0.004 0.0\n\nleft right 1.0\n"
TRACE = "left\tright\n10\t5\n20\t5\n"
CONFIG = "-t_chip 0.00015 # thickness\n-k_chip 130\n-grid_map_mode avg\n-sampling_intvl 0.01\n-model_type block\n"
LAYERS = """# two dies
0
Y
Y
1.75e6
0.01
0.00015
a.flp
1
Y
N
paste
2e-05
a.flp
2
Y
Y
1.75e6
0.01
0.00015
a.flp
"""
MATERIALS = "paste\nsolid\n4.0\n4e6\n# coolant\nwater\nfluid\n0.6\n4.1e6\n8.9e-4\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in (
        ("a.flp", FLOORPLAN),
        ("a.ptrace", TRACE),
        ("a.config", CONFIG),
        ("a.lcf", LAYERS),
        ("a.materials", MATERIALS),
        ("b.ptrace", "left right right left\n1 2 3 4\n"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def load(folder: Path, **change):
    arguments = {"configuration": folder / "a.config", "floorplan": folder / "a.flp"} | change
    return hotspot.load(arguments.pop("trace", folder / "a.ptrace"), **arguments)


def stacked(folder: Path, **change):
    common = {"trace": folder / "b.ptrace", "floorplan": None, "layers": folder / "a.lcf"}
    return load(folder, **(common | {"materials": folder / "a.materials"} | change))


def test_a_planar_case(folder):
    case = load(folder)
    assert case.mode == "block"
    assert case.stack.width_m == 0.008
    np.testing.assert_array_equal(case.trace.power_W, [[10, 5], [20, 5]])
    outcome = hotspot.run(case, transient=True)
    assert list(outcome.temperature_K)[:3] == ["left", "right", "iface_left"]
    assert list(outcome.temperature_K)[-1] == "inode_11"
    assert outcome.power_W == 20.0
    assert outcome.heat_out_W == pytest.approx(20.0, rel=1e-9)
    assert outcome.steady_text().splitlines()[0] == f"left\t{outcome.temperature_K['left']:.2f}"
    lines = outcome.trace_text().splitlines()
    assert lines[0] == "left\tright"
    assert len(lines) == 3


def test_the_columns_of_a_trace_may_stand_in_any_order(folder):
    straight = hotspot.run(load(folder)).temperature_K
    (folder / "turned.ptrace").write_text("right left\n5 10\n5 20\n")
    turned = hotspot.run(load(folder, trace=folder / "turned.ptrace"), transient=True)
    assert turned.temperature_K == straight
    assert turned.trace_K[1, 1] > turned.trace_K[1, 0]


def test_a_stacked_case_takes_columns_layer_by_layer(folder):
    case = stacked(folder, overrides={"grid_rows": "6", "grid_cols": "10"})
    assert case.mode == "grid"
    assert case.stack.convention == "hotspot-detailed"
    # Names return in the second die, where they stand in another order.
    np.testing.assert_array_equal(case.tile_powers_W(), [[1, 2, 4, 3]])
    names = list(hotspot.run(case).temperature_K)
    assert names[:4] == ["layer_0_left", "layer_0_right", "layer_1_left", "layer_1_right"]
    assert names[6:8] == ["hsp_left", "hsp_right"]
    off = stacked(folder, overrides={"detailed_3D": "off"})
    assert off.stack.convention == "hotspot"
    assert stacked(folder, convention="centred").stack.convention == "centred"


def test_the_secondary_path_adds_its_layers(folder):
    overrides = {"model_secondary": "1", "model_type": "grid", "grid_rows": "8", "grid_cols": "8"}
    outcome = hotspot.run(load(folder, overrides=overrides))
    names = list(outcome.temperature_K)
    assert names[:3:2] == ["pcb_left", "solder_left"]
    assert "c4_left" in names
    assert names[-1] == "inode_27"
    with pytest.raises(TierformError, match="needs the grid model"):
        load(folder, overrides={"model_secondary": "1"})


def test_initial_temperatures_are_kept(folder):
    for mode in ("block", "grid"):
        overrides = {"model_type": mode, "grid_rows": "8", "grid_cols": "8"}
        steady = hotspot.run(load(folder, overrides=overrides))
        (folder / "flat.ptrace").write_text("left right\n15 5\n15 5\n")
        text = "".join(f"{name}\t{value:.9f}\n" for name, value in steady.temperature_K.items())
        (folder / "start.init").write_text(text)
        case = load(folder, trace=folder / "flat.ptrace", overrides={**overrides, "init_file": "start.init"})
        outcome = hotspot.run(case, transient=True)
        blocks = [steady.temperature_K["left"], steady.temperature_K["right"]]
        np.testing.assert_allclose(outcome.trace_K, [blocks] * 2, atol=1e-6 if mode == "block" else 1.0)
    (folder / "start.init").write_text("left 300\n")
    with pytest.raises(TierformError, match="lack this node"):
        hotspot.run(load(folder, overrides={"init_file": "start.init"}), transient=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "words"),
    [
        ("a.flp", "0.004 0.0\n", "0.003 0.0\n", "a.flp:3", "overlaps"),
        ("a.flp", "0.004 0.0\n", "0.005 0.0\n", "a.flp", "uncovered"),
        ("a.flp", "0.008 0.004", "eight 0.004", "a.flp:3", "a block is"),
        ("a.flp", "right 0.004 0.008", "right 0.004 0", "a.flp:3", "must be positive"),
        ("a.flp", "right 0", "left 0", "a.flp", "stands twice"),
        ("a.flp", "0.004 0.0\n", "0.004 0.0 1e6 -1\n", "a.flp:3", "must be positive"),
        ("a.ptrace", "right", "wrong", "a.ptrace:1", "does not have"),
        ("a.ptrace", "left\tright", "left\tright\tmore", "a.ptrace:2", "3 powers"),
        ("a.ptrace", "20", "2O", "a.ptrace:3", "not a number"),
        ("a.ptrace", "20", "nan", "a.ptrace:3", "not a number"),
        ("a.ptrace", "20\t5", "20", "a.ptrace:3", "2 powers"),
        ("a.config", "-t_chip 0.00015", "-t_chip 0", "a.config:1", "greater than zero"),
        ("a.config", "-t_chip 0.00015", "-t_chip 11", "a.config:1", "1e-09 to 10"),
        ("a.config", "-k_chip 130", "-ambient 1e6", "a.config:2", "to 100000"),
        ("a.config", "-t_chip", "-t_chap", "a.config:1", "t_chip"),
        ("a.config", "-k_chip 130", "-k_chip", "a.config:2", "-key value"),
        ("a.config", "-k_chip 130", "k_chip 130", "a.config:2", "-key value"),
        ("a.config", "avg", "mean", "a.config:3", "mapping"),
        ("a.config", "block", "blocks", "a.config:5", "must be one of"),
        ("a.config", "-k_chip 130", "-material_chip silicon", "a.config:2", "unknown material"),
        ("a.config", "-k_chip 130", "-leakage_used 1", "a.config:2", "not supported"),
    ],
)
def test_mistakes_have_file_and_line(folder, file, old, new, place, words):
    path = folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(TierformError) as caught:
        load(folder)
    assert f"{folder}/{place}" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("0.00015", "0", "a.lcf:7", "positive"),
        ("2e-05", "-2e-05", "a.lcf:13", "positive"),
        ("2e-05", "11", "a.lcf:13", "1e-09 and 10"),
        ("paste", "pasta", "a.lcf:12", "paste"),
        ("Y\nN", "Y\nQ", "a.lcf:11", "Y or N"),
        ("1\nY\nN", "x\nY\nN", "a.lcf:9", "number"),
        ("1\nY\nN", "2\nY\nN", "a.lcf", "0, 1, 2"),
        ("0.00015\na.flp\n1", "0.00015\nb.flp\n1", "b.flp", "no such file"),
    ],
)
def test_mistakes_in_layer_files_have_a_line(folder, old, new, place, words):
    path = folder / "a.lcf"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(TierformError) as caught:
        stacked(folder)
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_does_the_first_of_two_values_count_as_in_hotspot(folder, caplog):
    path = folder / "a.config"
    one = hotspot.run(load(folder)).temperature_K
    path.write_text(path.read_text() + "-t_chip 0.0003\n-k_chip 130\n")
    assert hotspot.run(load(folder)).temperature_K == one
    assert len(caplog.messages) == 1 and f"{path}:6: -t_chip stands twice" in caplog.messages[0]


def test_more_mistakes(folder):
    (folder / "a.lcf").write_text(LAYERS.rsplit("\n", 3)[0])
    with pytest.raises(TierformError, match="ends where"):
        stacked(folder)
    (folder / "other.flp").write_text("left 0.004 0.004 0 0.006\nright 0.004 0.004 0.004 0.006\n")
    (folder / "a.lcf").write_text(LAYERS.replace("a.flp", "other.flp", 1))
    with pytest.raises(TierformError, match="over the edge of the largest"):
        stacked(folder)
    with pytest.raises(TierformError, match="-f"):
        load(folder, floorplan=None)
    for name in ("a.ptrace", "a.lcf", "a.flp"):
        (folder / "empty").write_text("# nothing\n")
        reader = {"a.ptrace": files.read_power_trace, "a.flp": files.read_floorplan}.get(name)
        with pytest.raises(TierformError):
            reader(folder / "empty") if reader else files.read_layers(folder / "empty", {})


def test_channels_need_to_be_turned_on_and_carry_heat(folder):
    rows = "\n".join([", ".join("0" * 8)] + [", ".join("2" + "1" * 6 + "3")] * 2 + [", ".join("0" * 8)] * 5)
    (folder / "net.csv").write_text(rows + "\n")
    (folder / "a.lcf").write_text(LAYERS.replace("2e-05\na.flp", "1e-04\nnet.csv"))
    with pytest.raises(TierformError, match="use_microchannels"):
        stacked(folder)
    overrides = {"use_microchannels": "1", "grid_rows": "8", "grid_cols": "8"}
    outcome = hotspot.run(stacked(folder, overrides=overrides))
    assert outcome.heat_out_W == pytest.approx(10.0, rel=1e-9)
    inlet, outlet = (outcome.temperature_K[f"layer_1_Cell_1_{column}"] for column in (0, 7))
    assert inlet < outlet
    with pytest.raises(TierformError, match="8 rows of 8"):
        hotspot.run(stacked(folder, overrides={**overrides, "grid_cols": "9"}))


READERS = (
    files.read_floorplan,
    files.read_power_trace,
    files.read_materials,
    files.read_temperatures,
    files.read_channels,
)
_words = st.sampled_from(
    ["left", "0.004", "-1", "1e400", "nan", "#", "Y", "solid", "fluid", "-t_chip", "0", "2", "x y", "é"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_words, max_size=8).map(" ".join), max_size=8).map("\n".join))
def test_any_text_is_read_or_refused(tmp_path, text):
    path = tmp_path / "any"
    path.write_text(text)
    calls = [*READERS, files.read_configuration, lambda p: files.read_layers(p, {})]
    for reader in calls:
        try:
            reader(path)
        except TierformError as error:
            assert error.problems


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["thermal", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_command_writes_what_it_says(folder, capsys):
    common = ("-c", folder / "a.config", "-f", folder / "a.flp", "-p", folder / "a.ptrace")
    out = folder / "out.json"
    assert run(*common, "--json", out, "-o", folder / "t.ttrace", "--steady", folder / "s.steady") == 0
    written = json.loads(out.read_text())
    assert written["peak_temperature_K"] == max(written["temperature_K"].values())
    assert written["temperature_K"]["left"] > written["temperature_K"]["right"]
    assert written["cpu_s"] >= 0
    assert len(written["trace"]["temperature_K"]) == 2
    assert (folder / "t.ttrace").read_text().startswith("left\tright\n")
    assert (folder / "s.steady").read_text().startswith("left\t")
    assert "block model" in capsys.readouterr().out


def test_the_command_takes_hotspots_own_spelling(folder, capsys):
    out = folder / "out.json"
    arguments = (
        "-p",
        folder / "b.ptrace",
        "-grid_layer_file",
        folder / "a.lcf",
        "-materials_file",
        folder / "a.materials",
    )
    arguments += ("-model_type", "grid", "-grid_rows", 5, "-grid_cols", 7, "-detailed_3D", "on")
    assert run(*arguments, "-grid_steady_file", folder / "cells", "--json", out) == 0
    written = json.loads(out.read_text())
    assert written["grid"] == [5, 7]
    assert written["peak_cell_temperature_K"] >= written["peak_temperature_K"] - 0.01
    cells = (folder / "cells").read_text().splitlines()
    assert cells[0] == "Layer 0:"
    assert len(cells) == 5 * (1 + 35)
    assert "HotSpot's heterogeneous 3D mode" in capsys.readouterr().out


def test_the_command_refuses_with_code_2_and_leaves_no_file(folder, capsys):
    common = ("-c", folder / "a.config", "-p", folder / "a.ptrace")
    (folder / "bad.flp").write_text("left 0.004 0.008 0 0\nright 0.004 0.008 0.003 0\n")
    assert run(*common, "-f", folder / "bad.flp", "--json", folder / "x.json") == 2
    assert "bad.flp:2" in capsys.readouterr().err
    assert not (folder / "x.json").exists()
    good = (*common, "-f", folder / "a.flp")
    for wrong in (
        ("--grid", "0x4"),
        ("--grid", "4x4x4"),
        ("--set", "t_chip"),
        ("--set", "t_chip=-1"),
        ("--grid-steady", "x"),
    ):
        assert run(*good, *wrong) == 2
    assert run(*good, "--solver", "magic") == 2


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom tierform.cli.main import main\n"
    code += "try:\n    main(['thermal', '--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'numpy', 'scipy', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_files_that_the_configuration_names_are_written(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "a.config").write_text(CONFIG + "-steady_file said.steady\n-grid_steady_file said.cells\n")
    common = ("-c", "a.config", "-f", "a.flp", "-p", "a.ptrace")
    assert run(*common) == 0
    assert (folder / "said.steady").exists()
    assert not (folder / "said.cells").exists()
    assert run(*common, "--grid", "4x3", "--steady", "other.steady") == 0
    assert (folder / "said.cells").read_text().count("\n") == 4 * (1 + 12)
    assert (folder / "other.steady").exists()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", 0.232859),
        ("-flow_type 1\n", 0.448462),
        ("-sink_type 1\n", 0.117344),
        ("-flow_type 1\n-sink_type 1\n", 0.776604),
        ("-rpm 4000\n", 0.176776),
        ("-rpm 12000\n-fin_height 0.01\n", 0.0696276),
    ],
)
def test_fins_and_fan_give_hotspots_resistance(folder, lines, expected):
    # What HotSpot 7 puts into r_convec for a copper sink of 60 mm.
    (folder / "fan.config").write_text("# fins\n" + lines)
    overrides = {"package_model_used": "1", "package_config_file": "fan.config"}
    case = load(folder, overrides=overrides)
    assert case.stack.top.resistance_K_per_W == pytest.approx(expected, rel=1e-5)
    assert "from fan and fins" in case.remarks[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-rpn 1000", "rpm"),
        ("-rpm fast", "number"),
        ("-rpm 0", "greater than zero"),
        ("-natural_convec 1", "not supported"),
        ("-sink_type 2", "0 or 1"),
        ("-fan_radius 0.01", "wider"),
    ],
)
def test_bad_package_files_are_refused(folder, text, words):
    (folder / "fan.config").write_text(text + "\n")
    with pytest.raises(TierformError) as caught:
        load(folder, overrides={"package_model_used": "1", "package_config_file": "fan.config"})
    assert "fan.config" in str(caught.value)
    assert words in str(caught.value)


def test_a_sink_without_room_for_fins_is_refused(folder):
    (folder / "fan.config").write_text("-fin_width 0.05\n")
    with pytest.raises(TierformError, match="no room"):
        load(folder, overrides={"package_model_used": "1", "package_config_file": "fan.config"})
