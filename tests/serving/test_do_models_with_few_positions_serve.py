"""Is a model with learned positions served though a step holds more tokens, and what is too long refused?"""

from __future__ import annotations

from tierform.serving.arrivals import Lengths, generate
from tierform.serving.engine import Engine
from tierform.serving.serve import serve
from tierform.workload import model_from_config

CONFIG = {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 48, "vocab_size": 80}


def test_does_a_step_hold_more_tokens_than_the_model_has_positions() -> None:
    engine = Engine(max_num_batched_tokens=96, max_num_seqs=4)
    model = model_from_config(CONFIG)
    fits, too_long = Lengths(40.0, 0.0), Lengths(44.0, 0.0)
    outputs = Lengths(8.0, 0.0)
    done = serve(model, "a100", generate(1e4, 12, fits, outputs, "even", seed=0), engine=engine)
    assert done.finished.all()
    refused = serve(model, "a100", generate(1e4, 12, too_long, outputs, "even", seed=0), engine=engine)
    assert not refused.finished.any()
