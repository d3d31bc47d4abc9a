"""Many requests over time: traces, a scheduler that is vLLM's step for step, step oracles, replicas and routers."""
