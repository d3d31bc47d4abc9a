"""Do `show`, `init` and `schema` say what the library and the files hold, and does what they write run as it is?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tierform import TierformError, library, load_chip, simulate
from tierform.chip.component import COMPONENTS
from tierform.chip.description import load_component
from tierform.cli.init import command as init
from tierform.cli.schema import command as schema
from tierform.cli.show import command as show
from tierform.files import read_yaml
from tierform.simulation.job_file import load_job
from tierform.simulation.runtime import load_runtime


def run(command: Any, *arguments: str) -> str:
    done = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def schema_of(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(schema, *arguments))
    return found


def fits(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether plain data obeys the part of JSON Schema that these schemas use."""
    if "$ref" in rule and not fits(value, root["$defs"][rule["$ref"].rsplit("/", 1)[1]], root):
        return False
    for key in ("anyOf", "oneOf"):
        if key in rule and not any(fits(value, choice, root) for choice in rule[key]):
            return False
    if ("const" in rule and value != rule["const"]) or ("enum" in rule and value not in rule["enum"]):
        return False
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kinds |= {"integer": int, "number": (int, float)}
    wanted = rule.get("type", list(kinds))
    wanted = [wanted] if isinstance(wanted, str) else wanted
    named = [kind for kind in wanted if isinstance(value, kinds[kind]) and (kind == "boolean" or value is not True)]
    if not named or (isinstance(value, int) and value < rule.get("minimum", value)):
        return False
    if isinstance(value, list):
        ahead = rule.get("prefixItems", [])
        rules = [*ahead, *[rule.get("items", {})] * (len(value) - len(ahead))]
        return all(fits(item, one if one is not False else {}, root) for item, one in zip(value, rules, strict=False))
    if isinstance(value, dict):
        own, other = rule.get("properties", {}), rule.get("additionalProperties", {})
        if any(key not in value for key in rule.get("required", ())):
            return False
        return all(
            fits(item, own[key], root)
            if key in own
            else other is not False and fits(item, {} if other is True else other, root)
            for key, item in value.items()
        )
    return True


def test_do_all_shipped_chips_fit_the_schema_and_mistakes_not() -> None:
    rule = schema_of("chip")
    for name in library.names("chips"):
        assert fits(read_yaml(library.find("chips", name)).content, rule, rule), name
    content = read_yaml(library.find("chips", "atleus")).content
    network = content["network"]
    for wrong in (
        {"network": {**network, "widht": "1 bit"}},
        {"network": {**network, "width": {"kind": "assumed"}}},
        {"package": {**content["package"], "kind": "4d"}},
        {"memory": [{"count": 2}]},
        {"schema": "tierform.chip/9"},
    ):
        assert not fits({**content, **wrong}, rule, rule), wrong


@pytest.mark.parametrize(
    "name", ["atleus-tile-32nm", "systolic-128x32-10nm", "vector-128-10nm", "haima-dram", "a100-gpu"]
)
def test_do_shipped_components_fit_the_schema_of_their_type(name: str) -> None:
    content = read_yaml(library.find("components", name)).content
    rule = schema_of("component", content["type"])
    assert fits(content, rule, rule)
    assert not fits({**content, "rowz": 3}, rule, rule)
    assert all("description" in item or "anyOf" in item or "$ref" in item for item in rule["properties"].values())


def test_does_the_schema_of_jobs_and_mappings_fit_what_is_written(tmp_path: Path) -> None:
    run(init, "job", str(tmp_path / "job.yaml"))
    run(init, "mapping", str(tmp_path / "map.yaml"))
    for name, file in (("job", "job.yaml"), ("mapping", "map.yaml")):
        rule = schema_of(name)
        content = read_yaml(tmp_path / file).content
        assert fits(content, rule, rule)
        assert not fits({**content, "extra": 1}, rule, rule)
    job = read_yaml(tmp_path / "job.yaml").content
    rule = schema_of("job")
    tuned = {"kind": "finetuning", "method": {"kind": "lora", "rank": 8}, "batch": 2, "sequence": 64}
    assert fits({**job, "task": tuned}, rule, rule)
    assert not fits({**job, "task": {**tuned, "method": {"kind": "lora", "rnak": 8}}}, rule, rule)


def test_which_keys_must_a_job_have() -> None:
    """A task's kind, and what has no default: groups of a step, the draft of decoding with drafts; nothing else."""
    found: dict[str, list[str]] = {}

    def walk(rule: object, at: str) -> None:
        if isinstance(rule, dict):
            if "required" in rule and isinstance(rule["required"], list):
                found[at] = rule["required"]
            for key, item in rule.items():
                walk(item, f"{at}/{key}")
        elif isinstance(rule, list):
            for index, item in enumerate(rule):
                walk(item, f"{at}/{index}")

    walk(schema_of("job"), "")
    assert found.pop("") == ["model", "chip", "task"]
    own = {at: keys for at, keys in found.items() if keys != ["kind"]}
    assert sorted(own.values()) == [["draft"], ["kind", "groups"]]
    kinds = [at for at, keys in found.items() if keys == ["kind"]]
    assert sum(at.count("/") == 4 for at in kinds) == 4  # /properties/task/oneOf/N of the other four tasks
    assert all("/method/anyOf/" in at for at in kinds if at.count("/") > 4)


def test_does_every_start_run_as_it_is(tmp_path: Path) -> None:
    run(init, "chip", str(tmp_path / "mine.yaml"))
    chip = load_chip(tmp_path / "mine.yaml")
    assert chip == load_chip("atleus").vary({"name": "mine"})
    run(init, "job", str(tmp_path / "job.yaml"))
    run(init, "mapping", str(tmp_path / "map.yaml"))
    job = load_job(tmp_path / "job.yaml")
    assert job.task is not None
    mapped = simulate("bert-base", job.task, "atleus", mapping=tmp_path / "map.yaml")
    assert mapped.latency_s == job.simulate().latency_s
    run(init, "runtime", str(tmp_path / "mine-too.yaml"))
    assert load_runtime(tmp_path / "mine-too.yaml").name == "mine-too"


@pytest.mark.parametrize("name", ["isaac", "atleus-2.5d", "a100", "attacc-like"])
def test_is_a_commented_chip_the_chip_that_it_begins_from(name: str, tmp_path: Path) -> None:
    run(init, "chip", str(tmp_path / "copy.yaml"), "--like", name)
    assert load_chip(tmp_path / "copy.yaml") == load_chip(name).vary({"name": "copy"})


@pytest.mark.parametrize("name", ["isaac-tile-32nm", "neurram-130nm", "systolic-128x32-10nm", "haima-dram", "h100-gpu"])
def test_is_a_commented_component_the_one_that_it_begins_from(name: str, tmp_path: Path) -> None:
    run(init, "component", str(tmp_path / "part.yaml"), "--like", name)
    assert load_component("x", 2, str(tmp_path / "part.yaml")) == load_component("x", 2, name)
    assert (tmp_path / "part.yaml").read_text().count("\n# ") > 5


def test_is_there_a_start_for_every_type_of_component(tmp_path: Path) -> None:
    for kind in ("crossbar", "systolic", "vector", "gpu", "pim"):
        assert kind in COMPONENTS
        path = tmp_path / f"{kind}.yaml"
        run(init, "component", str(path), "--type", kind)
        assert read_yaml(path).content["type"] == kind
        load_component("x", 1, str(path))


def test_does_init_replace_nothing(tmp_path: Path) -> None:
    (tmp_path / "chip.yaml").write_text("mine")
    with pytest.raises(TierformError, match="there already"):
        run(init, "chip", str(tmp_path / "chip.yaml"))
    assert (tmp_path / "chip.yaml").read_text() == "mine"
    with pytest.raises(TierformError, match="only a component"):
        run(init, "chip", str(tmp_path / "other.yaml"), "--type", "gpu")


def test_does_show_resolve_a_chip_with_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run(show, "isaac", "--json", str(tmp_path / "isaac.json"))
    found = json.loads((tmp_path / "isaac.json").read_text())
    assert found["shelf"] == "chips"
    # The chip changes a value of its component: what is shown is what holds.
    (cells,) = [part for name, part in found["parts"].items() if name == "components.reram"]
    assert cells["dynamic_operands"] is True
    assert cells["parts"]["adc"]["energy"]["source"] in found["sources"]
    assert all(text for text in found["sources"].values())


@pytest.mark.parametrize("name", ["hbm2", "bert-base", "isaac-tile-32nm", "eager", "logic"])
def test_does_show_find_an_entry_on_any_shelf(name: str) -> None:
    run(show, name)


def test_is_an_unknown_entry_named_with_the_nearest() -> None:
    with pytest.raises(TierformError) as caught:
        run(show, "atlues")
    assert caught.value.problems[0].nearest == "atleus"
    with pytest.raises(TierformError, match="no such shelf"):
        run(show, "atleus", "--shelf", "chip")
