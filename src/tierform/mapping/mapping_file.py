"""The file of a mapping: its schema, and every check against the chip, the workload and physics.

Names, tiles, and the crossbars, copies and layers that each weight really takes are checked, all at once, so that an
edited file cannot claim what the chip does not have.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document, read_yaml
from tierform.mapping.limits import copies_of, format_notes, require_memory
from tierform.mapping.place import MAX_REPLICAS, weights_on
from tierform.mapping.plan import INTERCONNECT, SCHEMA, Mapping, WeightPlacement, assignment_key, task_words
from tierform.schema import FileModel, validate
from tierform.workload.graph import Workload
from tierform.workload.operator import Kind
from tierform.workload.parallel import MicroBatches


class WeightFile(FileModel):
    """Where one weight of a block sits; layers in cells and layers that are written for every pass are two entries."""

    block: str = Field(description="Block of the model: layer, head, ...")
    weight: str = Field(description="Name of the weight in its block.")
    component: str = Field(description="Component of the chip that holds it.")
    crossbars: int = Field(description="Crossbars of one copy in one layer; the weight's size decides them.")
    copies: int = Field(1, description="2 where a transposed copy is held for the backward pass.")
    layers: int = Field(description="Layers of this entry.")
    replicas: int = Field(description=f"Copies that share the work, at most {MAX_REPLICAS}; 1 if not resident.")
    resident: bool = Field(description="In cells before the task begins, or written for every pass.")
    trainable: bool = Field(False, description="Whether the task changes the weight.")
    tiles: list[list[int]] = Field(description="Tiles of each resident layer, or one list for those that are written.")


class MicroBatchFile(FileModel):
    """Parts of the batch in each phase."""

    prefill: int = Field(default=1, description="Parts of the batch while prompts are read.")
    decode: int = Field(default=1, description="Parts of the batch while tokens are made.")
    training: int = Field(default=1, description="Parts of the batch in training.")


class MappingFile(FileModel):
    """Who runs what, and where weights sit, for one model and task on one chip."""

    schema_: str = Field(SCHEMA, description="Layout of the file; written as `schema`.")
    chip: str = Field(description="Name of the chip.")
    model: str = Field("", description="Name of the model; must be that of the job.")
    task: str = Field("", description="Kind of task and method (inference, finetuning lora); must be the job's.")
    micro_batches: MicroBatchFile = Field(
        MicroBatchFile(), description="Parts of the batch in each phase; one number stands for all phases."
    )
    chunks: int = Field(1, description="Parts of a micro-batch's tokens that follow each other in a pipeline.")
    assignments: dict[str, dict[str, dict[str, str]]] = Field(
        description="Component of every operator, by stage and block."
    )
    weights: list[WeightFile] = Field([], description="Weights that are held in crossbars.")

    @field_validator("micro_batches", mode="before")
    @classmethod
    def _for_each_phase(cls, given: object) -> object:
        """One number for all phases."""
        number = isinstance(given, int) and not isinstance(given, bool)
        return dict.fromkeys(MicroBatchFile.model_fields, given) if number else given


def load_mapping(path: Path | str, chip: Chip, workload: Workload) -> Mapping:
    """A mapping file for this chip and workload; TierformError with every mistake and its line."""
    document = read_yaml(path)
    if isinstance(document.content, dict) and document.content.get("schema") == SCHEMA:
        content = {key: value for key, value in document.content.items() if key != "schema"}
        document = Document(content, document.file, document.lines)
    described = validate(MappingFile, document)
    assignments = {
        f"{stage}/{block}/{operator}": component
        for stage, blocks in described.assignments.items()
        for block, operators in blocks.items()
        for operator, component in operators.items()
    }
    wrong = _assignment_problems(described, document, chip, workload)
    problems = [*_chip_problems(described, document, chip, workload), *wrong]
    problems += _weight_problems(described, document, chip)
    if not wrong:
        problems += _size_problems(described, document, chip, workload, assignments)
    if problems:
        raise TierformError(problems)
    used = {
        (block.name, operator.weight, assignments[assignment_key(stage, block, operator)])
        for stage, block, operator, _ in workload.occurrences()
    }
    kept = [w for w in described.weights if (w.block, w.weight, w.component) in used]
    unused = [f"{w.block}/{w.weight}" for w in described.weights if w not in kept]
    notes = [f"mapping read from {Path(path).name}"]
    if unused:
        notes.append(f"entries of weights that no operator uses there are left out: {', '.join(unused)}")
    mapping = Mapping(
        chip=described.chip,
        model=described.model,
        task=described.task,
        assignments=assignments,
        placements=tuple(
            WeightPlacement(
                block=w.block,
                weight=w.weight,
                component=w.component,
                crossbars=w.crossbars,
                layers=w.layers,
                replicas=w.replicas,
                resident=w.resident,
                trainable=w.trainable,
                tiles=tuple(tuple(tiles) for tiles in w.tiles),
                copies=w.copies,
            )
            for w in kept
        ),
        micro_batches=MicroBatches(**described.micro_batches.model_dump()),
        chunks=described.chunks,
        notes=(*notes, *format_notes(chip, workload, assignments)),
    )
    require_memory(chip, workload, mapping.placements)
    return mapping


def _chip_problems(described: MappingFile, document: Document, chip: Chip, workload: Workload) -> list[Problem]:
    problems = [
        Problem(
            f"the mapping is for another {key} than {wanted!r}" if given else f"it does not say for which {key} it is",
            document.file,
            document.line_of((key,)),
            key,
            given or None,
            fix=None if given else f"If it is for this one, write: {key}: {wanted}",
        )
        for key, given, wanted in (
            ("model", described.model, workload.model.name),
            ("task", described.task, task_words(workload.task)),
        )
        if given != wanted
    ]
    if described.chip != chip.name:
        problems.append(
            Problem(
                f"the mapping is for another chip than {chip.name!r}",
                document.file,
                document.line_of(("chip",)),
                "chip",
                described.chip,
            )
        )
    problems += [
        Problem("must be at least 1", document.file, document.line_of(path), ".".join(path), value)
        for path, value in (
            (("chunks",), described.chunks),
            *((("micro_batches", key), value) for key, value in described.micro_batches),
        )
        if value < 1
    ]
    return problems


def _assignment_problems(described: MappingFile, document: Document, chip: Chip, workload: Workload) -> list[Problem]:
    problems = []
    needed = {
        (stage.kind.value, block.name, operator.name): operator for stage, block, operator, _ in workload.occurrences()
    }
    given = {
        (stage, block, operator): component
        for stage, blocks in described.assignments.items()
        for block, operators in blocks.items()
        for operator, component in operators.items()
    }
    for key, component in given.items():
        line = document.line_of(("assignments", *key))
        shown = "assignments." + ".".join(key)
        if key not in needed:
            close = nearest("/".join(key), ["/".join(item) for item in needed])
            problems.append(Problem("the workload has no such operator", document.file, line, shown, None, close))
        elif needed[key].kind is Kind.COLLECTIVE and component == INTERCONNECT:
            continue
        elif component not in chip.components:
            problems.append(
                Problem(
                    "the chip has no such component",
                    document.file,
                    line,
                    shown,
                    component,
                    nearest(component, chip.components),
                )
            )
        elif not chip.components[component].supports(needed[key]):
            able = [name for name, other in chip.components.items() if other.supports(needed[key])]
            problems.append(
                Problem(
                    "this component cannot run the operator",
                    file=document.file,
                    line=line,
                    key=shown,
                    value=component,
                    nearest=None,
                    fix=f"Able: {', '.join(able) or 'none'}.",
                )
            )
    missing = [key for key in needed if key not in given]
    problems += [
        Problem(
            "this operator is not assigned",
            document.file,
            document.line_of(("assignments",)),
            "assignments." + ".".join(key),
        )
        for key in missing[:5]
    ]
    return problems


def _weight_problems(described: MappingFile, document: Document, chip: Chip) -> list[Problem]:
    problems = []
    tiles_by_component = {name: set(chip.tiles_of(name)) for name in chip.components}
    used: dict[str, int] = {}
    for index, weight in enumerate(described.weights):
        at = ("weights", index)
        if weight.component not in tiles_by_component:
            line = document.line_of((*at, "component"))
            problems.append(
                Problem(
                    "the chip has no such component",
                    document.file,
                    line,
                    f"weights.{index}.component",
                    weight.component,
                    nearest(weight.component, chip.components),
                )
            )
            continue
        valid = tiles_by_component[weight.component]
        strange = sorted({tile for tiles in weight.tiles for tile in tiles if tile not in valid})
        if strange:
            problems.append(
                Problem(
                    f"no tile of this number holds {weight.component!r}",
                    file=document.file,
                    line=document.line_of((*at, "tiles")),
                    key=f"weights.{index}.tiles",
                    value=strange[0] if len(strange) == 1 else strange,
                    nearest=None,
                    fix=f"Its tiles are {min(valid)} to {max(valid)}.",
                )
            )
        if min(weight.crossbars, weight.copies, weight.layers, weight.replicas) < 1:
            problems.append(
                Problem(
                    "crossbars, copies, layers and replicas must be at least 1",
                    document.file,
                    document.line_of(at),
                    f"weights.{index}",
                )
            )
        if weight.resident and len(weight.tiles) != weight.layers:
            problems.append(
                Problem(
                    f"needs one list of tiles for each of {weight.layers} layers",
                    document.file,
                    document.line_of((*at, "tiles")),
                    f"weights.{index}.tiles",
                    len(weight.tiles),
                )
            )
        if weight.resident:
            each = weight.crossbars * weight.copies * weight.replicas
            used[weight.component] = used.get(weight.component, 0) + each * weight.layers
    for name, count in used.items():
        available = chip.can.holders[name].crossbars if name in chip.can.holders else 0
        if count > available:
            problems.append(
                Problem(
                    f"{count} crossbars are used and {name!r} has {available}",
                    file=document.file,
                    line=document.line_of(("weights",)),
                    key="weights",
                    value=None,
                    nearest=None,
                    fix="Use fewer replicas or layers.",
                )
            )
    return problems


def _size_problems(
    described: MappingFile, document: Document, chip: Chip, workload: Workload, assignments: dict[str, str]
) -> list[Problem]:
    """Entries that are not what the weights of the workload take on their component."""
    holders = chip.can.holders
    copies = copies_of(chip, workload)
    needed = {
        (name, weight.block, weight.name): weight
        for name, weights in weights_on(workload, holders, assignments).items()
        for weight in weights
    }
    named = {(block.name, operator.weight) for _, block, operator, _ in workload.occurrences() if operator.weight}
    problems: list[Problem] = []
    layers: dict[tuple[str, str, str], int] = {}
    seen: set[tuple[tuple[str, str, str], bool]] = set()

    def wrong(what: str, index: int, key: str, value: object, fix: str | None = None, close: str | None = None) -> None:
        line = document.line_of(("weights", index, key))
        problems.append(
            Problem(
                what, file=document.file, line=line, key=f"weights.{index}.{key}", value=value, nearest=close, fix=fix
            )
        )

    for index, entry in enumerate(described.weights):
        place = (entry.component, entry.block, entry.weight)
        if entry.component not in holders:
            continue
        if place not in needed:
            if place[1:] not in named:
                known = [weight for block, weight in named if block == entry.block]
                what = f"no operator of {entry.block!r} has this weight"
                wrong(what, index, "weight", entry.weight, None, nearest(entry.weight, known))
            continue
        weight = needed[place]
        for key, value, right, what in (
            ("crossbars", entry.crossbars, weight.crossbars, "not the crossbars that one copy takes in one layer"),
            ("copies", entry.copies, copies, "not the copies that the chip's backward_weights ask for"),
            ("trainable", entry.trainable, weight.trainable, "not what the task does with the weight"),
        ):
            if value != right:
                wrong(what, index, key, value, f"Right: {right}.")
        if entry.replicas > MAX_REPLICAS:
            wrong(f"at most {MAX_REPLICAS} replicas are used", index, "replicas", entry.replicas)
        if not entry.resident and entry.replicas != 1:
            wrong("a weight that is not resident has one copy", index, "replicas", entry.replicas, "Right: 1.")
        if (place, entry.resident) in seen:
            wrong("this weight has an entry already", index, "weight", entry.weight)
        seen.add((place, entry.resident))
        layers[place] = layers.get(place, 0) + entry.layers
        units = dict(zip(chip.tiles_of(entry.component), chip.units_at(entry.component), strict=True))
        each = holders[entry.component].crossbars // max(1, sum(units.values()))
        per_tile = each * max(units.values(), default=1)
        size = weight.crossbars * copies * entry.replicas
        few = next((tiles for tiles in entry.tiles if sum(units.get(t, 0) for t in set(tiles)) * each < size), None)
        if entry.resident and few is not None:
            need = -(-size // per_tile)
            wrong(f"{size:,} crossbars of a layer need {need} tiles of {per_tile:,}", index, "tiles", few)
    for place, weight in needed.items():
        found = layers.get(place, 0)
        if found == weight.layers:
            continue
        first = next((i for i, e in enumerate(described.weights) if (e.component, e.block, e.weight) == place), None)
        if first is None:
            problems.append(
                Problem(
                    f"{weight.block}/{weight.name} runs on {place[0]!r} and has no entry",
                    document.file,
                    document.line_of(("weights",)),
                    "weights",
                    fix=f"It takes {weight.crossbars} crossbars in each of {weight.layers} layers.",
                )
            )
        else:
            wrong(
                f"all entries of this weight together have {found} layers",
                first,
                "layers",
                found,
                f"Right: {weight.layers}.",
            )
    return problems
