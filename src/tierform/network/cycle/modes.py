"""Names of the numbers that the compiled loops branch on: phases, states, routing modes, traffic, allocators."""

WARMING, RUNNING, DRAINING = range(3)
IDLE, ROUTING, ALLOCATING, ACTIVE = range(4)
# Routing modes.
(
    TABLE,
    XY_YX,
    ADAPTIVE_XY_YX,
    VALIANT,
    TORUS,
    TORUS_BALANCED,
    MINIMAL_ADAPTIVE,
    VALIANT_TORUS,
    GRID,
    TORUS_TABLE,
    BY_NODE,
    SPREAD,
    SPREAD_LESS_LOADED,
    SPREAD_ANY,
    ROMM,
    UGAL,
    GROUPS,
    GROUPS_UGAL,
    PLANAR_ADAPTIVE,
    MINIMAL_ADAPTIVE_TORUS,
) = range(20)
# Traffic: a pattern for each class of packets, or what is to be sent is listed.
PERMUTATION, UNIFORM, SHARED_WEIGHTS, MATRIX, FLOWS, TRACE = range(6)
# What a candidate is: an escape (or the only way), a channel shared with packets that it must not wait for, so taken
# only with room in it, or an escape for when nothing is shared.
ESCAPE, SHARED, LAST_ESCAPE = range(3)
ALLOCATOR_NAMES = (
    "islip",
    "separable_input_first",
    "separable_output_first",
    "select",
    "pim",
    "loa",
    "wavefront",
    "rr_wavefront",
    "max_size",
)
ISLIP, INPUT_FIRST, OUTPUT_FIRST, SELECT, PIM, LOA, WAVEFRONT, RR_WAVEFRONT, MAX_SIZE = range(9)
# What decides who goes first, before round-robin.
PRIORITY_NAMES = ("none", "class", "age", "network_age", "queue_length")
NO_PRIORITY, CLASS, AGE, NETWORK_AGE, QUEUE_LENGTH = range(5)
