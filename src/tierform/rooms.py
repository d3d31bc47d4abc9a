"""The rooms of the house, in the order in which information flows: a room imports only from rooms before it."""

from __future__ import annotations

ROOMS: tuple[tuple[str, str], ...] = (
    ("workload", "what is computed: models, tasks, operators with shapes and number formats, parallelism, tracing"),
    ("network", "how tiles talk: topologies, routing, formulas, the cycle-level engine"),
    ("memory", "where data waits: DRAM, HBM and CXL; formulas, the cycle-level engine"),
    ("thermal", "how hot it gets: stacks, packages, steady and transient solvers"),
    ("chip", "what computes it: chip files, components and their capabilities"),
    ("mapping", "which operator runs where, and where its weights sit"),
    ("simulation", "when and how much: jobs, costs, traffic, schedule, ledger, heat, result"),
    ("numerics", "what values come out: quantization, crossbars, noise, adapters"),
    ("compression", "smaller models: one calibration pass, quantizers, pruning, skipping, one plan"),
    ("store", "the weight store: any precision from one copy"),
    ("tuning", "real training: low-rank adapters and the switch to them"),
    ("decoding", "real decoding: drafts and exact verification, cache policies, predicted and measured speed"),
    ("serving", "many requests over time: traces, the scheduler, step oracles, replicas, energy"),
    ("exploration", "many designs: spaces, strategies, a results base, searched places, links and routes"),
    ("studies", "each published result as a runnable study"),
    ("compat", "other tools' files: SCALE-Sim, BookSim2, HotSpot, DRAMsim3, Ramulator"),
    ("validation", "the ledger: engines and whole models against reference tools and measured silicon"),
    ("report", "tables, pages of studies, timeline traces"),
    ("studio", "pages in a browser over results and jobs: one offline file, or a server on this machine"),
    ("cli", "one thin command a verb"),
)
