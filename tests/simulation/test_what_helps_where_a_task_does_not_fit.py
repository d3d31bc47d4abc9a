"""Does what is advised where a task does not fit need the memory that is said, and fit?"""

from __future__ import annotations

import re

import pytest

import tierform
from tierform import FineTuning, Inference, TierformError, Training
from tierform.memory.hierarchy import DoesNotFit
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
