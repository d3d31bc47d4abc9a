"""Records of flows and listed packets, in one array of 64-bit words.

A header (number of flows, address of their records, address of the node records, whether they are listed packets), a
record per flow, a record per node, then entries: one per (node, flow) that sends, grouped by node.  Listed packets have
a record each, in the order in which each source sends them, and a first one per node.
"""

from __future__ import annotations

# Flow record.
(
    F_WAITS_FOR,
    F_RELEASE,
    F_DELAY,
    F_STARTED,
    F_FINISHED,
    F_FLITS_LEFT,
    F_GOALS,
    F_GOAL_N,
    F_NEXT,
    F_NEXT_N,
    F_SENDERS,
    F_SENDER_N,
    F_STACK,
    F_PACKET_FLITS,
    F_COPIES,
) = range(15)
FLOW_SIZE = 15
# Entry record: the flow, flits still to send, the next destination, the sending node, its multicast tree (or 0).
E_FLOW, E_LEFT, E_TURN, E_NODE, E_TREE = range(5)
ENTRY_SIZE = 5
# Header.
FLOW_COUNT, AT_FLOWS, AT_ENTRY_BASE, IS_LIST = range(4)
HEADER = 4
# Record of a listed packet: the cycle from which it may be sent, destination node, flits, how many packets it waits
# for, the address and number of those that wait for it, its source, when it was sent and delivered.
L_CYCLE, L_GOAL, L_FLITS, L_WAITS_FOR, L_NEXT, L_NEXT_N, L_SOURCE, L_SENT, L_DONE = range(9)
LISTED_SIZE = 9
NEVER = 2**31 - 1
