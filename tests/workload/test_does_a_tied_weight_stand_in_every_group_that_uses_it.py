"""Does a pipeline group that uses another's weight (a head tied to the embedding) keep a copy, kept equal?"""

from __future__ import annotations

from small_models import CONFIGS

from tierform.workload import FineTuning, LoRA, Model, Workload, expand, model_from_config
from tierform.workload.graph import StageKind
from tierform.workload.memory import BlockKind, even_cut
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.task import Method

TWO = Parallelism(pipeline=2)
TABLE = 80 * 64  # words x width of the small GPT-2
BY_ADAMW_B = (2 + 4, 2, 8)  # bf16 with a master copy, gradient, two states


def workload(model: Model, split: Parallelism, method: Method | None = None) -> Workload:
    task = FineTuning(method, batch=4, sequence=16) if method else FineTuning(batch=4, sequence=16)
    return expand(model, task, MicroBatches(2, 2, 2), parallelism=split)


def states(made: Workload) -> list[tuple[int, int, int]]:
    """(weights, gradients, states) in bytes of each group."""
    groups = made.group_footprints(even_cut(made.memory, made.parallelism.parts))
    return [(g.weights + g.master_weights, g.gradients, g.optimizer_states) for g in groups]


def exchanged(made: Workload) -> list[tuple[int, int]]:
    """(values, members) of the exchanges of a weight's copies before the update."""
    update = next(stage for stage in made.stages if stage.kind is StageKind.UPDATE)
    collectives = [o for block in update.blocks if block.kind is BlockKind.GRADIENTS for o in block.operators]
    return [(o.inputs[0].elements, o.participants) for o in collectives if o.weight]


def test_does_the_last_group_keep_a_copy_with_gradients_and_states() -> None:
    """Tied against untied: the parameter is counted once, and both need 80 x 64 numbers in the last group."""
    config = CONFIGS["gpt2"]
    tied = workload(model_from_config(config), TWO)
    own = workload(model_from_config({**config, "tie_word_embeddings": False}), TWO)
    assert own.parameters - tied.parameters == TABLE
    assert states(tied) == states(own)
    alone = workload(model_from_config(config), Parallelism())
    both = [sum(values) for values in zip(*states(tied), strict=True)]
    assert [more - whole for more, whole in zip(both, states(alone)[0], strict=True)] == [
        TABLE * each for each in BY_ADAMW_B
    ]


def test_are_the_gradients_of_the_copies_added_up() -> None:
    tied = model_from_config(CONFIGS["gpt2"])
    assert exchanged(workload(tied, TWO)) == [(TABLE, 2)]
    assert exchanged(workload(tied, Parallelism(pipeline=2, tensor=2))) == [(TABLE // 2, 2)]
    assert exchanged(workload(tied, Parallelism())) == []
    assert exchanged(workload(model_from_config({**CONFIGS["gpt2"], "tie_word_embeddings": False}), TWO)) == []


def test_does_a_frozen_table_stand_twice_and_exchange_nothing() -> None:
    model = model_from_config(CONFIGS["gpt2"])
    made, alone = workload(model, TWO, LoRA(4)), workload(model, Parallelism(), LoRA(4))
    assert exchanged(made) == []
    both = [sum(values) for values in zip(*states(made), strict=True)]
    bytes_each = next(w for w in made.weights if w.name == "embedding.word").size_B
    assert both[0] - states(alone)[0][0] == bytes_each
    assert both[1:] == list(states(alone)[0][1:])
