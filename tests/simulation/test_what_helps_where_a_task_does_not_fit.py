"""Does what is advised where a task does not fit need the memory that is said, and fit?"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import tierform
from tierform import FineTuning, Inference, TierformError, Training
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.advice import changes
from tierform.units import format_quantity
from tierform.workload.parallel import Parallelism


def refused(task: Inference | FineTuning, split: Parallelism, model: str = "llama-3.1-8b") -> tuple[DoesNotFit, str]:
    with pytest.raises(TierformError) as error:
        tierform.simulate(model, task, "h100", parallelism=split, thermal="none")
    assert isinstance(error.value, DoesNotFit)
    return error.value, str(error.value)


def advised(text: str) -> dict[str, str]:
    """What to write -> the memory that it is said to need."""
    found = re.search("What would help: (.*)[.]$", text)
    assert found
    return dict(re.findall(r"(?:^|; )([^(]+) [(]([^)]*)[)]", found.group(1)))


def needed(task: Inference | FineTuning, split: Parallelism, model: str = "llama-3.1-8b") -> str:
    result = tierform.simulate(model, task, "h100", parallelism=split, thermal="none")
    return format_quantity(sum(result.memory_footprint_B.values()), "B")


def test_is_it_said_by_how_much_and_what_would_do() -> None:
    """Llama 3.1 8B, 8.03 billion weights of 16 bytes, does not fit in one of eight boards of 85.5 GB: 128.5 GB."""
    task, split = Training(batch=8, sequence=4096), Parallelism(data=8)
    error, text = refused(task, split)
    assert f"{format_quantity(error.needed_B - error.available_B, 'B')} are missing" in text
    helps = advised(text)
    assert list(helps) == ["zero=1", "zero=2", "zero=3", "tensor=2", "pipeline=2", "method=lora"]
    for zero in (1, 2, 3):
        assert helps[f"zero={zero}"] == needed(task, Parallelism(data=8, zero=zero))
    assert helps["tensor=2"] == needed(task, Parallelism(tensor=2, data=8))
    assert helps["method=lora"] == needed(tierform.FineTuning(tierform.LoRA(), batch=8, sequence=4096), split)


def test_is_the_nearest_told_where_nothing_fits() -> None:
    _, text = refused(Training(batch=1, sequence=4096), Parallelism(), "llama-3.1-70b")
    helps = advised(text)
    assert helps and all("too much" in size for size in helps.values())


def test_is_an_inference_helped_by_formats_and_chips() -> None:
    task = Inference(batch=8, sequence=4096, decode=4)
    _, text = refused(task, Parallelism(), "llama-3.1-70b")
    helps = advised(text)
    assert helps["tensor=2"] == needed(task, Parallelism(tensor=2), "llama-3.1-70b")
    assert "weights=int4" in helps and "zero=3" not in helps


def told(task: Inference | FineTuning, split: Parallelism, chip: str = "h100") -> list[str]:
    return [text for text, _, _ in changes(task, split, tierform.load_chip(chip))]


def test_which_changes_of_training_are_tried() -> None:
    full = FineTuning(tierform.Full(), batch=8, sequence=64)
    chips, methods = ["tensor=2", "pipeline=2"], ["method=lora", "method=qlora"]
    again = ["recomputation=selective", "recomputation=full"]
    less = [*again, "fused_loss=true"]
    alone = [*again, "fused_update=true", "fused_loss=true"]  # one pass, one copy, one group
    small = "optimizer=adamw-8bit"
    halved = "batch=4, gradient_accumulation=2"
    assert told(full, Parallelism()) == [*alone, small, halved, *chips, "data=8, zero=3", *methods]
    # Copies share states; a batch of 8 on 8 copies is not halved.
    twice = ["zero=1", "zero=2", "zero=3"]
    assert told(full, Parallelism(data=2)) == [*less, *twice, small, halved, *chips, *methods]
    assert told(full, Parallelism(data=2, zero=2)) == [*less, "zero=3", small, halved, *chips, *methods]
    assert told(full, Parallelism(data=8)) == [*less, *twice, small, *chips, *methods]
    odd = replace(full, batch=7)
    assert told(odd, Parallelism(tensor=2)) == [*alone, small, "tensor=4", "pipeline=2", *methods]
    # What is done already is not told again.
    done = replace(full, recomputation="selective", fused_loss=True, optimizer="sgd", batch=4, gradient_accumulation=3)
    assert told(done, Parallelism(pipeline=3)) == [
        "recomputation=full",
        "batch=2, gradient_accumulation=6",
        "tensor=2",
        "pipeline=6",
        *methods,
    ]
    lora = replace(odd, method=tierform.LoRA(4, ("q",)))
    assert told(lora, Parallelism())[-1] == "method=qlora" and "method=lora" not in told(lora, Parallelism())
    changed = list(changes(lora, Parallelism(), tierform.load_chip("h100")))[-1][1]
    assert isinstance(changed, FineTuning) and changed.method == tierform.QLoRA(4, ("q",))
    # A chip that nothing joins to others.
    assert told(odd, Parallelism(), "atleus") == [*alone, small, *methods]


def test_which_changes_of_inference_are_tried() -> None:
    task = Inference(batch=6, sequence=64)
    formats, chips = ["kv_cache=fp8", "weights=int4"], ["tensor=2", "pipeline=2"]
    assert told(task, Parallelism()) == ["batch=3", *formats, *chips]
    assert told(task, Parallelism(data=3)) == ["batch=3", *formats, *chips]
    assert told(task, Parallelism(data=2)) == [*formats, *chips]
    assert told(task, Parallelism(), "atleus") == ["batch=3", *formats]
    precisions = [changed.precision for _, changed, _ in changes(task, Parallelism(), tierform.load_chip("h100"))]
    assert precisions[1] is not None and (precisions[1].kv_cache, precisions[1].weights) == ("fp8", "bf16")
    assert precisions[2] is not None and precisions[2].weights == "int4"
