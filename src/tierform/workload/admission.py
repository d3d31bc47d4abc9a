"""Prompts that are admitted in turn: each joins a step of the sequences that are being decoded.

A server under steady load holds its batch: where a sequence ends, the next prompt takes its place, and its tokens are
computed in the same step in which all others get their next one (continuous batching: Yu et al., Orca, OSDI 2022;
Agrawal et al., Sarathi-Serve, OSDI 2024).  Over the time of one generation of `decode` tokens, each of `batch` places
is filled anew once: `min(batch, decode)` steps bring prompts (more than one each where the batch is larger than the
generation is long), the other steps decode alone.

Limits: finished sequences are evenly spread over the steps; those that decode beside a prompt are half way through; a
prompt is not cut into chunks.
"""

from __future__ import annotations

from dataclasses import replace

from tierform.workload.layers import Pass
from tierform.workload.task import SequenceGroup


def admitted(prompt: Pass, sequence: int, decode: int) -> tuple[Pass, int]:
    """(the pass of a step that brings prompts, how many such steps there are) of a batch that is held.

    `prompt` is the pass of all prompts together.  The steps that decode alone are `decode` less these.
    """
    batch = prompt.sequences
    together = -(-batch // max(1, decode))
    steps = -(-batch // together)
    others = batch - together
    groups = [SequenceGroup(together, sequence)]
    if others:
        groups.append(SequenceGroup(others, 1, sequence + decode // 2))
    return replace(prompt, groups=tuple(groups)), min(steps, decode)
