"""Prompts that are admitted in turn: each joins a step of the sequences that are being decoded.

A server under steady load holds its batch: where a sequence ends, the next prompt takes its place, and its tokens are
computed in the same step in which all others get their next one (continuous batching: Yu et al., Orca, OSDI 2022;
Agrawal et al., Sarathi-Serve, OSDI 2024).  Over the time of one generation of `decode` tokens, each of `batch` places
is filled anew once: `min(batch, decode)` steps bring prompts (more than one each where the batch is larger than the
generation is long), the other steps decode alone.

Generations differ in length.  What is in a step at any time has run for E[L^2] / (2 E[L]) tokens in the mean: a long
generation is met more often than a short one (the mean age of a renewal process: Feller, vol. II, XI.4).  With a
standard deviation of s times the mean that is (1 + s^2) / 2 of a mean length.  s = 0: all are equally long; s = 1 is
what chats show.

Limits: finished sequences are evenly spread over the steps; ages are even between none and the greatest; those that
decode beside a prompt have the mean age; a prompt is not cut into chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierform.workload.layers import Pass
from tierform.workload.task import SequenceGroup


@dataclass(frozen=True, slots=True)
class Steady:
    """A load under which a batch is held; `length_spread`: standard deviation of the generations over their mean."""

    length_spread: float = 0.0

    @property
    def stretch(self) -> float:
        """How much longer than in a batch of equal generations a sequence has run in the mean."""
        return 1.0 + self.length_spread * self.length_spread

    def admitted(self, prompt: Pass, sequence: int, decode: int) -> tuple[Pass, int]:
        """(the pass of a step that brings prompts, how many such steps there are) of a batch that is held.

        `prompt` is the pass of all prompts together.  The steps that decode alone are `decode` less these.
        """
        batch = prompt.sequences
        together = -(-batch // max(1, decode))
        steps = -(-batch // together)
        others = batch - together
        groups = [SequenceGroup(together, sequence)]
        if others:
            groups.append(SequenceGroup(others, 1, sequence + int(self.stretch * decode / 2)))
        return replace(prompt, groups=tuple(groups)), min(steps, decode)
