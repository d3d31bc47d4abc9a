"""Mistral: LLaMA's layers with a sliding attention window (Jiang et al., 2023)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS
from tierform.workload.families.llama import plan, read_gated_decoder
from tierform.workload.models import Model


def read(config: Config, name: str) -> Model:
    """MistralConfig's keys."""
    window = config.integer("sliding_window", default=0, minimum=0)
    return read_gated_decoder(config, name, "mistral", sliding_window=window)


MISTRAL = Family("mistral", read, plan, HEADS)
