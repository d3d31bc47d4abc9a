"""Does every shipped chip load, with sources, and is every wrong chip file refused with all its mistakes at once?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform import TierformError, library, load_chip
from tierform.chip.description import load_component

GOOD = """\
schema: tierform.chip/1
name: small
description: two dies
package:
  kind: 3d
  dies:
    - {name: low, grid: [2, 2], holds: {systolic: 1, vector: 1}}
    - {name: high, grid: [2, 2], holds: {reram: 2}}
components:
  reram: {file: isaac-tile-32nm, set: {crossbars: 8}}
  systolic: {file: systolic-128x32-10nm}
  vector: {file: vector-128-10nm}
network:
  clock: {value: 1 GHz, kind: assumed, note: example}
  width: {value: 128 bit, kind: assumed, note: example}
  vertical: {width: {value: 64 bit, kind: assumed, note: example}}
memory:
  - {device: hbm2}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "chip.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, *changes: tuple[str, str]) -> dict[str, object]:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(TierformError) as caught:
        load_chip(write(folder, text))
    return {str(problem.key): problem for problem in caught.value.problems}


@pytest.mark.parametrize("name", library.names("chips"))
def test_does_every_shipped_chip_load_with_sources(name: str) -> None:
    chip = load_chip(name)
    assert chip.name == name
    assert chip.area_m2 > 0
    for line in chip.assumptions():
        assert line.source or line.note, f"{name}: {line.subject} has neither source nor note"
        if line.source:
            library.citation(line.source)


@pytest.mark.parametrize("name", library.names("components"))
def test_does_every_shipped_component_load(name: str) -> None:
    part = load_component(name, 3, name)
    assert part.units == 3
    assert part.area_m2 > 0
    assert part.leakage_W(350.0) >= part.leakage_W(300.0) >= 0
    assert part.assumptions()


def test_does_a_file_of_ones_own_load(tmp_path: Path) -> None:
    chip = load_chip(write(tmp_path, GOOD))
    assert [tile.die for tile in chip.tiles] == [0] * 4 + [1] * 4
    assert chip.components["reram"].units == 8
    assert getattr(chip.components["reram"], "crossbars") == 64
    assert chip.tiles_of("reram") == (4, 5, 6, 7)
    assert chip.die_size_m(1)[0] == pytest.approx(2 * (2 * chip.components["reram"].area_m2 / 8) ** 0.5)
    changed = load_chip(write(tmp_path, GOOD.replace("crossbars: 8", "crossbars: 9")))
    assert changed.fingerprint != chip.fingerprint


def test_are_all_mistakes_of_a_chip_file_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path, ("grid: [2, 2], holds: {systolic", "grid: [2, 0], holds: {systollic"), ("memory:", "memmory:")
    )
    assert found["memmory"].nearest == "memory"  # type: ignore[attr-defined]
    assert found["memmory"].line == 17  # type: ignore[attr-defined]
    found = problems(tmp_path, ("holds: {systolic: 1", "holds: {systollic: 1"))
    assert "no die holds this component" in found["components.systolic"].what  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "key", "word"),
    [
        ("kind: 3d", "kind: 4d", "package.kind", "choice"),
        ("tierform.chip/1", "tierform.chip/9", "None", "another schema"),
        ("clock: {value: 1 GHz", "clock: {value: 1 GB", "network.clock", "converts to Hz"),
        ("128 bit, kind: assumed", "128 bit, kind: published, source: foo-2020", "network.width", "sources.yaml"),
        ("{file: vector-128-10nm}", "{file: vector-128-10mn}", "components.vector.file", "library"),
        ("vector: 1}", "vector: 0}", "components.vector", "no die holds"),
        ("set: {crossbars: 8}", "set: {crosbars: 8}", "components.reram.set.crosbars", "unknown key"),
        ("  vertical: {width: {value: 64 bit, kind: assumed, note: example}}\n", "", "network.vertical", "links"),
        ("kind: 3d", "kind: planar", "package.dies", "exactly one die"),
        ("name: high, grid: [2, 2]", "name: high, grid: [2, 3]", "package.dies", "same grid"),
        ("name: high", "name: low", "None", "same name"),
        ("grid: [2, 2], holds: {reram: 2}", "grid: [2000, 2000], holds: {reram: 2}", "None", "tiles"),
        ("memory:\n  - {device: hbm2}\n", "precision: {weigths: int8}\n", "precision.weigths", "unknown key"),
        ("memory:\n  - {device: hbm2}\n", "precision: {weights: int9}\n", "precision", "number format"),
    ],
)
def test_is_each_mistake_named_with_key_and_reason(tmp_path: Path, old: str, new: str, key: str, word: str) -> None:
    found = problems(tmp_path, (old, new))
    assert any(word in str(problem) for problem in found.values()), found
    assert key in found


def test_is_an_unknown_chip_named_with_the_nearest() -> None:
    with pytest.raises(TierformError) as caught:
        load_chip("atlues")
    assert caught.value.problems[0].nearest == "atleus"


def test_is_a_component_without_its_source_refused(tmp_path: Path) -> None:
    text = (library.ROOT / "components" / "vector-128-10nm.yaml").read_text().replace("horowitz-2014", "horrowitz")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(TierformError, match=r"sources\.yaml") as caught:
        load_component("vector", 1, str(tmp_path / "mine.yaml"))
    assert caught.value.problems[0].nearest == "horowitz-2014"
