"""A model with weights and the questions that it is asked, from the names that a command or a space file gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tierform.errors import fail

if TYPE_CHECKING:
    from torch import nn

    from tierform.numerics.tasks import TaskSet


def model_and_task(
    model: str, data: str, test: str = "", steps: int = 600, on_step: Callable[[int, float], None] | None = None
) -> tuple[nn.Module, TaskSet]:
    """The model of a folder, a package, a GGUF file or the Hub with its task; `small` is trained for `steps` steps.

    `on_step(step, loss)` is told of each of them.  TierformError where model and data do not go together.
    """
    from tierform.numerics import tasks

    if model != "small":
        if data in tasks.BUILT_IN:
            fail(
                "the built-in data sets have no text for a tokenizer",
                key="--data",
                value=data,
                fix="Use the model `small`, or give your own data.",
            )
        from tierform.compression.checkpoints.folder import model_folder
        from tierform.compression.checkpoints.packages import PACKAGES
        from tierform.gguf import is_gguf
        from tierform.numerics.tables import load_model_and_task

        if model in PACKAGES or is_gguf(model):
            model = str(model_folder(model))
        return load_model_and_task(model, data, test)
    if data == "digits":
        task = tasks.digits()
    elif data == "tilted-digits":
        from tierform.numerics.tilted import tilted_digits

        task = tilted_digits()
    elif data == "pairs":
        task = tasks.pairs()
    elif data.startswith("articles:"):
        from tierform.numerics.articles import article_file

        task = article_file(Path(data.partition(":")[2]))
    elif data.endswith(".txt"):
        task = tasks.text_file(Path(data), Path(test) if test else None)
    else:
        fail(
            "a small model is trained on digits, tilted-digits, pairs, articles:FILE.txt or a .txt file",
            key="--data",
            value=data,
            choices=tasks.BUILT_IN,
            fix="For other data give a model with a tokenizer.",
        )
    return tasks.pretrain(task, steps=steps, on_step=on_step), task


__all__ = ["model_and_task"]
