"""Every bound of the HTTP/2 engine. What crosses one is refused with the code named beside it."""

from __future__ import annotations

from typing import Final

from wire.rpc import KEEPALIVE_S, KEEPALIVE_TIMEOUT_S, METADATA_BYTES_MAX

# --- Connections ---------------------------------------------------------------------------------

# Connections that wait to be accepted. Too few, and a burst of clients waits a second for the
# retransmission of its SYN; the kernel caps it at net.core.somaxconn.
LISTEN_BACKLOG: Final = 4096

# Open connections of one server; one more is closed at once with ENHANCE_YOUR_CALM.
CONNECTIONS_MAX: Final = 10_000

# Bookkeeping of a connection happens on this beat: silence, stalls, handshakes are counted in it.
TICK_S: Final = 1.0

# From TCP's connect to the peer's SETTINGS. Also what one attempt to connect may take.
HANDSHAKE_TICKS_MAX: Final = 10
CONNECT_S_MAX: Final = 5.0

# Silence before a ping, and after it; then the connection is given up.
PING_AFTER_TICKS: Final = int(KEEPALIVE_S / TICK_S)
DEAD_AFTER_TICKS: Final = int((KEEPALIVE_S + KEEPALIVE_TIMEOUT_S) / TICK_S)

# After a last GOAWAY the peer may read what is left; then the connection is cut.
CLOSING_TICKS_MAX: Final = 2

# Calls or answers that collect before they are handed to the socket in the middle of a tick. More
# save system calls, fewer keep the next process waiting less.
PUSH_CALLS: Final = 32

# A connection's buffer for what it collects is kept for the next time up to this size.
OUT_KEPT_MAX: Final = 64 * 1024

# --- Streams -------------------------------------------------------------------------------------

# Open at once on one connection, as MAX_CONCURRENT_STREAMS; one more gets REFUSED_STREAM.
STREAMS_MAX: Final = 4096

# A connection is used for so many calls, and then replaced: stream ids end at 2**31.
STREAM_ID_LAST: Final = 2**31 - 1 - 2**16

# Streams that are served by the grpcio server behind the bridge, all connections together.
BRIDGED_STREAMS_MAX: Final = 200

# Of one such stream: messages that wait for the server behind, and answers that are not read.
BRIDGED_MESSAGES_MAX: Final = 100
BRIDGED_BYTES_MAX: Final = 4 * 1024 * 1024

# --- Field blocks --------------------------------------------------------------------------------

# As MAX_HEADER_LIST_SIZE: of a list decoded, and as many bytes of a block not decoded yet.
HEADER_LIST_BYTES_MAX: Final = METADATA_BYTES_MAX

# Frames that one field block may be cut into; more is ENHANCE_YOUR_CALM, whatever they hold.
CONTINUATIONS_MAX: Final = 16

# Blocks whose meaning is remembered, of one process, and how long those may be.
CACHED_BLOCKS_MAX: Final = 2048
CACHED_BLOCK_BYTES_MAX: Final = 1024

# Names of callers' own fields that are remembered as well formed, of one process.
NAMES_MAX: Final = 256

# Values of grpc-timeout that are remembered with their meaning, each way.
TIMEOUTS_MAX: Final = 4096

# --- Flow control and memory ---------------------------------------------------------------------

# What a peer may send on one stream before it hears more: messages up to here need no reservation.
STREAM_WINDOW: Final = 65_535

# What may be under way on a whole connection; renewed when half of it is used.
CONNECTION_WINDOW: Final = 16 * 1024 * 1024

# Of one connection: room reserved for messages above STREAM_WINDOW, which wait for it in order.
# More than one message of the largest size must fit.
RESERVED_BYTES_MAX: Final = 64 * 1024 * 1024

# Of one connection: bytes of messages that have begun, are not whole, and have no reservation. The
# call that crosses it is answered OVERLOADED.
PARTIAL_BYTES_MAX: Final = 64 * 1024 * 1024

# What a slow reader may leave in a connection's write buffer. Above the first nothing more is read
# from it; above the second it is cut.
WRITE_BUFFER_HIGH: Final = 1024 * 1024
WRITE_BUFFER_MAX: Final = 64 * 1024 * 1024

# Kept for all connections of one server or transport together: written and not read, waiting for
# windows, half received. Past it the connection that holds most is cut, looked at each tick.
HELD_BYTES_MAX: Final = 1024 * 1024 * 1024

# Messages of one connection that wait for the peer's window, or for their turn. Above the first,
# new requests are answered OVERLOADED; above the second the connection is cut.
BLOCKED_BYTES_HIGH: Final = 128 * 1024 * 1024
BLOCKED_BYTES_MAX: Final = 512 * 1024 * 1024

# A peer that reads nothing, or gives no window, or leaves a message half sent, for so long.
STALLED_TICKS_MAX: Final = 60

# Errors that were told more than once in a row, whose encoding is kept: some for each tenant that
# is over its limits. Past it all are encoded anew.
KEPT_ERRORS_MAX: Final = 1_024

# --- Frames that cost work and carry nothing -----------------------------------------------------

# A peer may send so many at once, so many more a second, and so many more for each stream that it
# opened. Past that: ENHANCE_YOUR_CALM. grpcio sends two or three WINDOW_UPDATEs a call, and a PING
# a round trip while it measures bandwidth.
RESETS_FREE: Final = (1000, 0.0, 0.5)
PINGS_FREE: Final = (1000, 10.0, 2.0)
SETTINGS_FREE: Final = (100, 1.0, 0.0)
EMPTY_FREE: Final = (10_000, 100.0, 20.0)


def allowance(free: tuple[int, float, float], age_s: float, streams: int) -> float:
    """How many such frames a connection of this age, that opened so many streams, may have sent."""
    burst, per_second, per_stream = free
    return burst + per_second * age_s + per_stream * streams
