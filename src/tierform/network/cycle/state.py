"""The memory of a cycle-level simulation: one array of 32-bit words, cut into records, and 64-bit counters.

A compiled loop is fastest, and compiles quickest, when it gets one array rather than sixty; so all state lies in one
array of int32, and a record is named by the address of its first word.  Routers, input ports, output ports, channels
(an input's virtual channel), out channels (the same on the output side, with the credits), nodes and packets each have
records of fixed length; the constants below are the places of their words.  Records fill whole cache lines (16 words)
and begin with what every flit touches.  Bit masks take two words each; the compiled loop reads them through a 64-bit
view of the same array.  :class:`Memory` gives the sections as plain two-dimensional views to Python code.

A flit is one word: packet << 2 | is head << 1 | is tail.  Sums that outgrow 32 bits are counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierform.arrays import Ints, Shorts, Words
from tierform.network.topology import IntArray

# Words of a cache line: records and sections start at multiples of it.
LINE = 16
# The most virtual channels that the inputs of a router may have together for bit masks of them (a sign bit is left).
MASK_BITS = 62
# The same for the virtual channels of one port.
RANGE_BITS = 30

# Counters (int64).
(
    NOW,
    SAMPLED_PACKETS,
    PACKET_LATENCY,
    NETWORK_LATENCY,
    FLIT_LATENCY,
    SAMPLED_FLITS,
    HOPS,
    ACCEPTED,
    SENT,
    IN_FLIGHT,
    IN_FLIGHT_CREATED,
    MEASURED_IN_FLIGHT,
    PHASE,
    DRAIN_FROM,
    FREE_TOP,
    WORST,
    FRAGMENTATION,
    FLOWS_LEFT,
    STEP,
    ERROR,
    PACKETS,
    RANDOM,
) = range(22)
COUNTERS = 24
# Counters of each class of packets, after those.
(
    K_PACKETS,
    K_LATENCY,
    K_NETWORK,
    K_FLIT_LATENCY,
    K_FLITS,
    K_HOPS,
    K_ACCEPTED,
    K_IN_FLIGHT,
    K_IN_FLIGHT_CREATED,
    K_MEASURED_IN_FLIGHT,
) = range(10)
CLASS_COUNTERS = 12

# Header of the words: constants of the network, then addresses of sections.
(
    VCS,
    DEPTH,
    NODES,
    ROUTERS,
    AXES,
    MODE,
    HORIZON,
    FLIT_EVENTS,
    CREDIT_EVENTS,
    ASK_HORIZON,
    ASK_EVENTS,
    SPEED_IN,
    SPEED_OUT,
    WAIT_FOR_TAIL,
    BUSY_WHEN_FULL,
    VC_ALLOCATOR,
    SWITCH_ALLOCATOR,
    ITERATIONS,
    CHANNEL_SIZE,
    IN_SIZE,
    OUT_SIZE,
    BINS,
    SIDES,
    LAYERS,
    COMMIT,
    ADAPTIVE_LOW,
    ADAPTIVE_HIGH,
    GROUP_SIZE,
    STOP_AT_HOME,
    RANDOM_ENTRY,
    PRIORITY,
    SPECULATIVE,
    SPECULATE_FREE,
    SPECULATE_ROOM,
    SPECULATE_UNASKED,
    SPECULATIVE_ALLOCATOR,
    CLASSES,
    SUBNETS,
    ALL_ROUTERS,
) = range(39)
(
    AT_ROUTER,
    AT_IN,
    AT_OUT,
    AT_CHANNEL,
    AT_OWN,
    AT_NODE,
    AT_PACKET,
    AT_FREE,
    AT_FLITS,
    AT_SINKS,
    AT_CREDITS,
    AT_PLACE,
    AT_AXIS_PORT,
    AT_SCRATCH,
    AT_HISTOGRAM,
    AT_SHAPE,
    AT_LISTS,
    AT_GRANTED,
    AT_BEST,
    AT_REQUEST,
    AT_POINTERS,
    AT_ASKS,
    AT_ASKING,
    AT_BUSY,
    AT_WINNERS,
    AT_SENDERS,
    AT_TODO,
    AT_FIRST_OUT,
    AT_INPUT_OF,
    AT_OFFERS,
    AT_ASKED,
    AT_DENSE,
    AT_SPECULATIONS,
    AT_MARKS,
    AT_QUEUES,
    AT_LAST_VC,
    AT_CLASS_PRIORITY,
) = range(42, 79)
HEADER = 80

# Router.
(
    R_CHANNEL,
    R_OWN,
    R_INPUTS,
    R_OUTPUTS,
    R_ROUTING_DELAY,
    R_VC_DELAY,
    R_SWITCH_DELAY,
    R_CROSSBAR_DELAY,
    R_CREDIT_DELAY,
    R_SWITCH_N,
    R_VC_N,
    R_ROUTING_N,
    R_SWITCH_LIST,
    R_VC_LIST,
    R_ROUTING_LIST,
    R_VC_START,
    R_SWITCH_START,
    R_SPECULATION_START,
    R_OUT,
    R_IN,
) = range(20)
R_SIZE = 32
# Input port, after a mask of the outputs that have granted it; then, for any speedup, the rotating offsets and the
# switch's accept pointers, for requests and for speculative ones.
I_OFFERS = 0  # (64 bits)
(
    I_ACCEPT,
    I_OFFSET,
    I_CHANNEL,
    I_OUTPUTS,
    I_AFTER,
    I_CREDIT_DELAY,
    I_ROUTING_DELAY,
    I_AXIS,
    I_AHEAD,
    I_BACK,
    I_LOCAL,
    I_PART,
    I_CYCLIC,
    I_CREDIT_FREE,
    I_STEP,
    I_POINTERS,
) = range(2, 18)
# Output port, after masks: input channels that want the switch, those that ask for a virtual channel, free virtual
# channels.  Then what only the general router needs, with the switch's grant pointers for any speedup.
O_WANT, O_ASK, O_FREE = 0, 1, 2  # (64 bits)
(
    O_POINTER,
    O_PICK,
    O_INPUTS,
    O_CHANNELS,
    O_OWN,
    O_LOCAL,
    O_FIRST_OWN,
    O_SEND_DELAY,
    O_LINE,
    O_DELAY,
    O_INTERVAL,
    O_IDLE_FROM,
    O_CYCLIC,
    O_POINTERS,
) = range(6, 20)
# Channel, in one line what every flit touches, the flits of the buffer at its end.
(C_HEAD, C_FILL, C_ASSIGNED, C_LOCAL, C_FEEDER, C_NUMBER, C_ROUTING_DELAY, C_ACCEPT, C_FLITS) = range(9)
# In lines before that, what the general router and routing with choices need, then, going down, the candidates (output
# port, lowest and highest virtual channel, priority).
(
    C_PORT,
    C_VC,
    C_ROUTER,
    C_STATUS,
    C_IN_LOCAL,
    C_OUT_LOCAL,
    C_GRANT_AT,
    C_ACCEPT_AT,
    C_ROTATE_AT,
    C_DUE,
    C_OUTCOME,
    C_PART,
    C_ROUTES,
    C_NEXT_VC,
    C_BRANCH,
    C_SENT,
    C_COPY,
) = range(-1, -18, -1)
C_ROUTE, ROUTE_SIZE = -21, 4
# Out channel; the receiving channel is its target.
W_USED, W_PLACE, W_TARGET, W_FLITS, W_OWNER, W_GRANT, W_SLOTS, W_PORT = range(8)
W_SIZE = 8
# Owners of out channels other than the channel that feeds it: a source or, in the general router, any channel; one
# whose tail has left and whose last credit is awaited.
FREE, OWNED, TAIL_SENT = range(3)
# Node.
(
    N_PACKET,
    N_NEXT,
    N_READY,
    N_LEFT,
    N_VC,
    N_LAST_VC,
    N_OWN,
    N_SLOTS,
    N_ON,
    N_ACCEPTED,
    N_EJECT,
    N_ROUTER,
    N_TURN,
    N_CREDIT_DELAY,
    N_SUBNET,
) = range(15)
N_SIZE = 16
# Packet.
(
    P_GOAL,
    P_HOME,
    P_SIZE,
    P_CREATED,
    P_ENTERED,
    P_HEAD_AT,
    P_MEASURED,
    P_HOPS,
    P_PART,
    P_VIA,
    P_DIRECTION,
    P_STAGE,
    P_FLOW,
    P_TREE,
    P_NEXT_FLIT,
    P_FLIT_TIMES,
) = range(16)
P_RECORD = 16


@dataclass(frozen=True, eq=False)
class Memory:
    """The words of a simulation and how to find them."""

    words: Words  # int32
    masks: Ints  # the same memory as int64
    counters: Ints  # int64
    table: Shorts  # (parts, routers, routers) int16, output ports counted within the router
    link_out: IntArray  # output port of each link
    link_in: IntArray
    node_out: IntArray

    def section(self, at: int, number: int, size: int) -> Words:
        """(number, size) view of the records at header place `at`."""
        first = int(self.words[at])
        return self.words[first : first + number * size].reshape(number, size)

    @property
    def own(self) -> Words:
        """(output ports and nodes, virtual channels, words) view of the out channels."""
        vcs, nodes = int(self.words[VCS]), int(self.words[NODES])
        ports = len(self.link_out) + nodes
        return self.section(AT_OWN, (ports + nodes) * vcs, W_SIZE).reshape(ports + nodes, vcs, W_SIZE)

    @property
    def node(self) -> Words:
        """(nodes, words) view of the nodes."""
        return self.section(AT_NODE, int(self.words[NODES]), N_SIZE)

    @property
    def histogram(self) -> Words:
        """View of the latency histogram."""
        first = int(self.words[AT_HISTOGRAM])
        return self.words[first : first + int(self.words[BINS])]
