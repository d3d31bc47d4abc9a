"""Names of the numbers that the compiled loops branch on: phases, states, routing modes, kinds of traffic."""

WARMING, RUNNING, DRAINING = range(3)
IDLE, ROUTING, ALLOCATING, ACTIVE = range(4)
# Routing modes.
TABLE, XY_YX, ADAPTIVE_XY_YX, VALIANT, TORUS, TORUS_BALANCED, MINIMAL_ADAPTIVE, VALIANT_TORUS, GRID = range(9)
# Traffic kinds.
PERMUTATION, UNIFORM, SHARED_WEIGHTS, MATRIX, FLOWS = range(5)
# What a candidate is: an escape (or the only way), a channel shared with packets that it must not wait for, so taken
# only with room in it, or an escape for when nothing is shared.
ESCAPE, SHARED, LAST_ESCAPE = range(3)
