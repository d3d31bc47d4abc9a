"""Turns any ``torch.nn.Module`` into the operator graph of a workload, without loading weights."""

from tierform.workload.tracing.folder import load_traced
from tierform.workload.tracing.module import trace

__all__ = ["load_traced", "trace"]
