"""Does a chip vary at the paths of its file, keep what stays, say all that cannot be, and read back equal?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform import Inference, TierformError, library, load_chip, simulate
from tierform.chip.description import Chip, load_component
from tierform.simulation.choose import fabric_of
from tierform.simulation.job import Job
from tierform.simulation.job_file import job_content

ATLEUS = load_chip("atleus")


def refused(chip: Chip, changes: dict[str, object]) -> dict[str, str]:
    with pytest.raises(TierformError) as caught:
        chip.vary(changes)
    assert all(problem.file is None for problem in caught.value.problems)
    return {str(problem.key): str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize("name", library.names("chips"))
def test_does_every_shipped_chip_read_back_equal(name: str, tmp_path: Path) -> None:
    chip = load_chip(name)
    chip.write(tmp_path / "again.yaml")
    again = load_chip(tmp_path / "again.yaml")
    assert again == chip
    assert again.fingerprint == chip.fingerprint


def test_does_a_varied_chip_say_what_was_asked_and_read_back_equal(tmp_path: Path) -> None:
    made = ATLEUS.vary(
        {
            "components.reram.adc_bits": 6,
            "components.reram.parts.adc.energy": {"value": "0.4 pJ", "kind": "assumed", "note": "a try"},
            "network.width": "128 bit",
            "package.dies.systolic.holds.vector": 2,
            "memory.0.count": 4,
            "memory.1": {"device": "ddr5"},
        }
    )
    cells, was = made.components["reram"].parameters, ATLEUS.components["reram"].parameters  # type: ignore[attr-defined]
    assert cells.adc_bits == 6
    assert cells.parts["adc"].energy.value == pytest.approx(0.4e-12)
    # Of the converter and of all other parts the rest stays.
    # The energy was given for six bits and stays; the area follows the law from 8 to 6 bits.
    law = 0.52210  # (81.729 * 6 + 2.1335 * 2**6) / (81.729 * 8 + 2.1335 * 2**8)
    assert cells.parts["adc"].area.value == pytest.approx(was.parts["adc"].area.value * law, rel=1e-4)
    assert cells.parts.keys() == was.parts.keys()
    assert made.network is not None and made.network.width.value == 128
    assert made.components["vector"].units == 32
    assert [(entry.device, entry.count) for entry in made.memory] == [("hbm2", 4), ("ddr5", 1)]
    assert made.fingerprint != ATLEUS.fingerprint
    made.write(tmp_path / "made.yaml")
    again = load_chip(tmp_path / "made.yaml")
    assert again == made and again.fingerprint == made.fingerprint


def test_is_what_stays_the_same_object() -> None:
    made = ATLEUS.vary({"components.reram.adc_bits": 5})
    assert made.components["reram"] is not ATLEUS.components["reram"]
    for name in ("systolic", "vector"):
        assert made.components[name] is ATLEUS.components[name]
    assert made.package is ATLEUS.package and made.network is ATLEUS.network and made.tiles is ATLEUS.tiles
    wide = ATLEUS.vary({"network.width": "512 bit"})
    assert all(wide.components[name] is part for name, part in ATLEUS.components.items())
    assert fabric_of(wide) is not fabric_of(ATLEUS)
    assert fabric_of(ATLEUS.vary({"memory.0.count": 4})) is fabric_of(ATLEUS)


def test_does_nothing_changed_give_an_equal_chip() -> None:
    assert ATLEUS.vary({}) == ATLEUS
    there_and_back = ATLEUS.vary({"memory.0.count": 4}).vary({"memory.0.count": 2})
    assert there_and_back == ATLEUS and there_and_back.fingerprint == ATLEUS.fingerprint


def test_does_a_varied_chip_cost_what_its_file_costs(tmp_path: Path) -> None:
    made = ATLEUS.vary({"network.width": "32 bit", "components.systolic.clock": "500 MHz"})
    made.write(tmp_path / "slow.yaml")
    task = Inference(batch=1, sequence=64)
    here, there, plain = (simulate("bert-base", task, chip) for chip in (made, str(tmp_path / "slow.yaml"), ATLEUS))
    assert here.latency_s == there.latency_s > plain.latency_s
    assert here.energy_J == there.energy_J


def test_are_all_problems_told_at_once_with_nearest_names() -> None:
    found = refused(
        ATLEUS,
        {
            "components.rream.adc_bits": 4,
            "components.reram.crosbars": 6,
            "components.reram.parts.adc.energy": "3 ns",
            "components.vector.lanes": 0,
            "network.widht": "128 bit",
            "netwrok.width": "1 bit",
            "network.clock.x": 3,
            "package.dies.sistolic.grid": [6, 6],
            "memory.3.count": 4,
        },
    )
    assert "did you mean 'reram'" in found["components.rream.adc_bits"]
    assert "did you mean 'crossbars'" in found["components.reram.crosbars"]
    assert "converts to J" in found["components.reram.parts.adc.energy"]
    assert "at least 1" in found["components.vector.lanes"]
    assert "did you mean 'width'" in found["network.widht"]
    assert "did you mean 'network'" in found["netwrok"]
    assert "did you mean 'systolic'" in found["package.dies.sistolic.grid"]
    assert "Known here: 0" in found["memory.3.count"]
    assert "network.clock" in found
    assert len(found) == 9


@pytest.mark.parametrize(
    ("path", "value", "key", "word"),
    [
        ("package.dies.systolic.grid", [5, 4], "package.dies", "same grid"),
        ("precision.weights", "int9", "precision", "number format"),
        ("components.systolic.type", "vector", "components.systolic.type", "choice"),
        ("components.reram", None, "package.dies.1.holds.reram", "no component"),
        ("components.reram.adc_bits", object(), "components.reram.adc_bits", "a number"),
        ("", 3, "None", "path of keys"),
        ("network.width.value", "64 bit", "network.width", "note"),
        ("network.router_cycles.x", 3, "network.router_cycles.x", "has no keys"),
    ],
)
def test_is_what_cannot_be_refused(path: str, value: object, key: str, word: str) -> None:
    chip = ATLEUS.vary({"network.width": {"value": "64 bit", "kind": "assumed", "note": "a"}})
    change = {path: value} if path != "network.width.value" else {path: value, "network.width.note": ""}
    found = refused(chip, change)
    assert key in found and word in found[key]


def test_does_null_take_a_key_away() -> None:
    assert ATLEUS.vary({"cooling.limits.reram": None}).cooling.limits == {}
    assert ATLEUS.vary({"memory.0": None}).memory == ()
    sized = ATLEUS.vary({"components.reram.retention": "1 day"})
    assert sized.components["reram"].refreshes(1e6) == 11  # type: ignore[attr-defined]
    gone = sized.vary({"components.reram.retention": None})
    assert gone.components["reram"] == ATLEUS.components["reram"]


def test_does_a_varied_chip_need_a_file_before_a_job_can_name_it() -> None:
    job = Job(model="bert-base", task=Inference(batch=1, sequence=64), chip=ATLEUS.vary({"memory.0.count": 1}))
    assert job.key != Job(model="bert-base", task=Inference(batch=1, sequence=64), chip=ATLEUS).key
    with pytest.raises(TierformError, match="has no file"):
        job_content(job)


def chip_file(folder: Path, change: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(
        "name: mine\ndescription: cells alone\n"
        "package: {kind: planar, dies: [{name: die, grid: [2, 2], holds: {cells: 1}}]}\n"
        "components:\n  cells:\n    file: isaac-tile-32nm\n"
        f"    set: {change}\n"
        "network: {clock: 1 GHz, width: 64 bit}\n"
    )
    return path


def test_does_set_keep_what_it_does_not_name(tmp_path: Path) -> None:
    # The case that once deleted all other parts of a tile: energy and area fell by a third.
    plain = load_component("cells", 4, "isaac-tile-32nm")
    for form in ("{parts: {adc: {energy: 0.4 pJ}}}", "{parts.adc.energy: 0.4 pJ}"):
        chip = load_chip(chip_file(tmp_path, form))
        (cells,) = chip.of_type("crossbar")
        assert cells.area_m2 / cells.units == pytest.approx(plain.area_m2 / 4)
        assert cells.parameters.parts["adc"].energy.value == pytest.approx(0.4e-12)  # type: ignore[attr-defined]


def test_are_mistakes_in_set_told_with_the_chip_files_line(tmp_path: Path) -> None:
    path = chip_file(tmp_path, "{adc_bitz: 3, parts: {adc: {energy: 3 s}, new: {area: 1 mm^2}}, parts.dac.x: 1}")
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "adc_bitz" in text)
    with pytest.raises(TierformError) as caught:
        load_chip(path)
    found = {str(problem.key).split(".set.")[1]: problem for problem in caught.value.problems}
    assert {"adc_bitz", "parts.adc.energy", "parts.new.charge", "parts.dac.x"} <= found.keys()
    assert all(problem.file == str(path) and problem.line == line for problem in found.values())
    assert found["adc_bitz"].nearest == "adc_bits"


def test_does_a_mistake_in_a_components_own_file_keep_its_place(tmp_path: Path) -> None:
    text = (library.ROOT / "components" / "isaac-tile-32nm.yaml").read_text().replace("rows: 128", "rows: -1")
    (tmp_path / "cells.yaml").write_text(text)
    path = chip_file(tmp_path, "{crossbars: 9}")
    path.write_text(path.read_text().replace("isaac-tile-32nm", "cells.yaml"))
    with pytest.raises(TierformError) as caught:
        load_chip(path)
    (problem,) = caught.value.problems
    assert problem.key == "rows" and str(problem.file).endswith("cells.yaml")
    assert problem.line == next(i for i, row in enumerate(text.splitlines(), 1) if row.startswith("rows"))


def test_is_a_file_read_again_when_it_changed(tmp_path: Path) -> None:
    path = chip_file(tmp_path, "{crossbars: 9}")
    first = load_chip(path)
    path.write_text(path.read_text().replace("crossbars: 9", "crossbars: 8"))
    (before,), (after,) = first.of_type("crossbar"), load_chip(path).of_type("crossbar")
    assert getattr(before, "crossbars") * 8 == getattr(after, "crossbars") * 9
