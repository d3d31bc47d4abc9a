"""Does a mixed pass that is cut into as many parts as it has sequences hold every token once, and no part of none?"""

from __future__ import annotations

from tierform.workload import expand, load_model
from tierform.workload.parallel import MicroBatches
from tierform.workload.task import SequenceGroup, Step


def test_are_parts_beyond_the_sequences_of_a_kind_left_out() -> None:
    """15 decodes and two prompts in 17 parts: the first holds one of each, 14 more a decode, and two would be empty."""
    task = Step((SequenceGroup(15, 1, 635), SequenceGroup(1, 164, 0), SequenceGroup(1, 211, 506)))
    (stage,) = expand(load_model("gpt2"), task, MicroBatches(17, 17, 17)).stages
    assert [(wave.micro_batches, wave.tokens) for wave in stage.waves] == [(1, 1 + 164 + 211), (14, 1)]
