"""TSV blocks within a layer against HotSpot itself, dies of different size, and HotSpot's keys on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform.cli.main import main
from tierform.compat.hotspot import run as hotspot
from tierform.errors import TierformError

CONFIG = """-t_chip 0.00015
-r_convec 0.5
-s_sink 0.03
-t_sink 0.005
-s_spreader 0.02
-t_spreader 0.001
-t_interface 2e-05
-ambient 318.15
-model_type grid
-grid_map_mode avg
"""
LAYERS = """0
Y
Y
1.75e6
0.01
0.00015
bottom.flp
1
Y
N
2.0e6
1.0
0.00002
bond.flp
2
Y
Y
1.75e6
0.01
0.00010
top.flp
3
Y
N
4e6
0.25
2e-05
tim.flp
"""
BOTTOM = "a 0.005 0.010 0.0 0.0\nb 0.005 0.005 0.005 0.0\nc 0.005 0.005 0.005 0.005\n"


def _vias(own: str) -> tuple[str, list[str]]:
    """Nine blocks of vias (1.1 x 0.9 mm, off the grid) among silicon on 10 x 10 mm, and the names in their order."""
    rows, names = [], []

    def block(name: str, width: float, height: float, x: float, y: float, material: str = "") -> None:
        names.append(name)
        rows.append(f"{name} {width:.7g} {height:.7g} {x:.7g} {y:.7g} {material}")

    below = 0.0
    for row, y in enumerate((0.0011, 0.0052, 0.0073)):
        block(f"fill{row}", 0.01, y - below, 0.0, below)
        left = 0.0
        for column, x in enumerate((0.0013, 0.0041, 0.0077)):
            block(f"gap{row}{column}", x - left, 0.0009, left, y)
            block(f"tsv{row}{column}", 0.0011, 0.0009, x, y, own)
            left = x + 0.0011
        block(f"gap{row}3", 0.01 - left, 0.0009, left, y)
        below = y + 0.0009
    block("fill3", 0.01, 0.01 - below, 0.0, below)
    return "\n".join(rows) + "\n", names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top, names = _vias("2.9e6 0.0030")
    powers = ["18", "6", "2", *("0" if name.startswith("tsv") else "0.6" for name in names)]
    for name, text in (
        ("a.config", CONFIG),
        ("a.lcf", LAYERS),
        ("bottom.flp", BOTTOM),
        ("top.flp", top),
        ("bond.flp", _vias("3.2e6 0.004")[0]),
        ("tim.flp", "all 0.010 0.010 0.0 0.0\n"),
        ("a.ptrace", " ".join(["a", "b", "c", *names]) + "\n" + " ".join(powers) + "\n"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


# Kelvin of HotSpot 7 with -detailed_3D on and a grid of 16 x 16.
HOTSPOT = {
    "layer_0_a": 352.95,
    "layer_0_b": 349.58,
    "layer_0_c": 345.75,
    "layer_1_tsv00": 348.50,
    "layer_1_gap01": 349.87,
    "layer_1_tsv11": 349.99,
    "layer_1_fill2": 348.40,
    "layer_1_tsv22": 343.67,
    "layer_2_fill0": 345.38,
    "layer_2_tsv00": 348.24,
    "layer_2_gap11": 350.58,
    "layer_2_tsv12": 345.33,
    "layer_2_tsv21": 347.95,
    "layer_2_fill3": 344.19,
    "layer_3_all": 345.40,
    "hsp_all": 344.06,
    "hsink_all": 336.76,
    "inode_0": 337.39,
    "inode_11": 336.27,
}


# The same with everything half as high (10 x 5 mm), so that cells are not square.
HOTSPOT_OBLONG = {
    "layer_0_a": 362.41,
    "layer_0_c": 351.95,
    "layer_1_tsv22": 349.02,
    "layer_2_tsv01": 354.13,
    "layer_2_gap11": 357.22,
    "layer_2_fill3": 347.69,
    "hsink_all": 336.95,
}


def test_vias_on_cells_that_are_not_square_are_as_warm_as_in_hotspot(folder: Path) -> None:
    for name in ("bottom.flp", "bond.flp", "top.flp", "tim.flp"):
        rows = [row.split() for row in (folder / name).read_text().splitlines()]
        half = [[n, w, f"{float(h) / 2:.7g}", x, f"{float(y) / 2:.7g}", *rest] for n, w, h, x, y, *rest in rows]
        (folder / name).write_text("\n".join(" ".join(row) for row in half) + "\n")
    case = hotspot.load(
        folder / "a.ptrace",
        configuration=folder / "a.config",
        layers=folder / "a.lcf",
        overrides={"grid_rows": "16", "grid_cols": "16"},
    )
    found = hotspot.run(case).temperature_K
    for name, kelvin in HOTSPOT_OBLONG.items():
        assert found[name] == pytest.approx(kelvin, abs=0.1), name


def test_vias_within_a_layer_are_as_warm_as_in_hotspot(folder: Path) -> None:
    case = hotspot.load(
        folder / "a.ptrace",
        configuration=folder / "a.config",
        layers=folder / "a.lcf",
        overrides={"grid_rows": "16", "grid_cols": "16"},
    )
    found = hotspot.run(case).temperature_K
    for name, kelvin in HOTSPOT.items():
        assert found[name] == pytest.approx(kelvin, abs=0.1), name
    # The vias matter: silicon alone between the dies would move these temperatures by more than the tolerance.
    for name in ("bond.flp", "top.flp"):
        plain = "\n".join(" ".join(row.split()[:5]) for row in (folder / name).read_text().splitlines())
        (folder / name).write_text(plain + "\n")
    case = hotspot.load(
        folder / "a.ptrace",
        configuration=folder / "a.config",
        layers=folder / "a.lcf",
        overrides={"grid_rows": "16", "grid_cols": "16"},
    )
    assert hotspot.run(case).temperature_K["layer_0_a"] > 352.95 + 0.2


def test_a_smaller_die_lies_where_its_file_puts_it(folder: Path) -> None:
    def hottest(x: float) -> dict[str, float]:
        (folder / "top.flp").write_text(f"left 0.002 0.004 {x:.4g} 0.003\nright 0.002 0.004 {x + 0.002:.4g} 0.003\n")
        (folder / "bond.flp").write_text("all 0.010 0.010 0.0 0.0\n")
        (folder / "a.ptrace").write_text("a b c left right\n0 6 0 4 4\n")
        case = hotspot.load(
            folder / "a.ptrace",
            configuration=folder / "a.config",
            layers=folder / "a.lcf",
            overrides={"grid_rows": "20", "grid_cols": "20"},
        )
        outcome = hotspot.run(case)
        assert outcome.heat_out_W == pytest.approx(14.0, rel=1e-6)
        return outcome.temperature_K

    west, east = hottest(0.0), hottest(0.006)
    # Block b heats the south-east: the die is warmer above it, and its eastern half is the warmer one on the way there.
    assert east["layer_2_left"] > west["layer_2_left"] + 1
    assert west["layer_2_right"] > west["layer_2_left"]


def test_what_lies_around_a_smaller_die_is_the_filler_of_the_materials_file(folder: Path) -> None:
    (folder / "top.flp").write_text("left 0.004 0.004 0.003 0.003\n")
    (folder / "bond.flp").write_text("all 0.010 0.010 0.0 0.0\n")
    (folder / "a.ptrace").write_text("a b c left\n10 2 2 1\n")
    hot = []
    for conductivity in ("0.3", "150"):
        (folder / "a.materials").write_text(f"filler\nsolid\n{conductivity}\n1.6e6\n")
        case = hotspot.load(
            folder / "a.ptrace",
            configuration=folder / "a.config",
            layers=folder / "a.lcf",
            materials=folder / "a.materials",
            overrides={"grid_rows": "20", "grid_cols": "20"},
        )
        hot.append(hotspot.run(case).temperature_K["layer_0_a"])
    assert hot[0] > hot[1] + 1


def test_a_die_over_the_edge_is_refused(folder: Path) -> None:
    (folder / "top.flp").write_text("left 0.004 0.004 0.008 0.003\n")
    with pytest.raises(TierformError, match="reaches over the edge"):
        hotspot.load(folder / "a.ptrace", configuration=folder / "a.config", layers=folder / "a.lcf")


def test_every_key_of_hotspot_is_taken_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*extra: str) -> tuple[int, str]:
        files = ["thermal", "-c", str(folder / "a.config"), "-p", str(folder / "a.ptrace")]
        with pytest.raises(SystemExit) as stop:
            main([*files, "-grid_layer_file", str(folder / "a.lcf"), "-grid_rows", "16", "-grid_cols", "16", *extra])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out + captured.err

    def peak(text: str) -> float:
        return float(text.partition("hottest point ")[2].split()[0])

    plain, cooler = run(), run("-r_convec", "0.1", "-package_model_used", "0", "-s_sink", "0.06")
    assert plain[0] == cooler[0] == 0
    assert peak(cooler[1]) < peak(plain[1]) - 5
    assert run("-r_convec")[0] == 2
    code, text = run("-ambient", "1e308")
    assert (code, "ambient: must be greater than zero" in text) == (2, True)
    assert run("-r_convecc", "1")[0] == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.ptrace", "a b c\n-1 2 3\n", "must not be negative"),
        ("a.ptrace", "a b c\n1e308 2 3\n", "within 1e\\+06 W"),
        ("bottom.flp", "a 0.01 1e-20 0 0\n", "sizes must be positive"),
        ("bottom.flp", "a 1e200 0.01 0 0\n", "sizes must be positive"),
        ("a.lcf", LAYERS.replace("1.75e6", "1e308", 1), "heat capacity must be positive"),
        ("a.lcf", LAYERS.replace("0\nY", "²\nY", 1), "begins with its number"),
        ("a.config", "-k_chip 1e-320\n", "greater than zero"),
        ("a.config", "-grid_rows 100000\n", "whole number of 1 to 4096"),
    ],
)
def test_nonsense_is_refused(folder: Path, name: str, text: str, words: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(TierformError, match=words):
        hotspot.load(folder / "a.ptrace", configuration=folder / "a.config", layers=folder / "a.lcf")
