"""Field blocks: HPACK (RFC 7541), and what makes repeated ones cheap.

Neither side keeps a dynamic table: we ask for HEADER_TABLE_SIZE 0 and use none ourselves. Then
equal fields are equal bytes on every connection, and what a block means can be remembered under its
bytes. A peer that has not followed the setting yet is decoded by `hpack`, in order, and never
remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from hpack import Decoder
from hpack.exceptions import HPACKError
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from wire.http2.frames import ConnectionFault, ErrorCode
from wire.http2.limits import CACHED_BLOCK_BYTES_MAX, CACHED_BLOCKS_MAX, HEADER_LIST_BYTES_MAX

Field = tuple[bytes, bytes]

# Says at the start of the first block that this encoder's table is empty (RFC 7541, section 6.3).
TABLE_SIZE_ZERO: Final = b"\x20"

# RFC 7541, appendix A; index 0 is not used.
STATIC_TABLE: Final[tuple[Field, ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)
_STATIC_NAMES: Final = {name: at for at, (name, _) in reversed(list(enumerate(STATIC_TABLE))) if at}

_V = TypeVar("_V")


def literal(name: bytes, value: bytes) -> bytes:
    """One field as a literal that is in nobody's table (RFC 7541, section 6.2.2)."""
    index = _STATIC_NAMES.get(name)
    if index is not None:
        head = bytes(encode_integer(index, 4))
    else:
        head = b"\x00" + bytes(encode_integer(len(name), 7)) + name
    size = len(value)
    if size < 127:
        return b"%b%c%b" % (head, size, value)
    return head + bytes(encode_integer(size, 7)) + value


def block(fields: Iterable[Field]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


class TwoGenerations(Generic[_V]):
    """A bounded memory under bytes that forgets what was not asked for lately.

    When the young half is full it becomes the old one, and the old one is forgotten; what is found
    in the old half moves to the young one. So a stream of keys that never come again costs the ones
    in use one more lookup now and then, and no more.
    """

    __slots__ = ("_half", "_old", "young")

    def __init__(self, entries_max: int) -> None:
        self._half = entries_max // 2
        self.young: dict[bytes, _V] = {}
        self._old: dict[bytes, _V] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def get(self, key: bytes) -> _V | None:
        found = self.young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, value: _V) -> None:
        if len(key) > CACHED_BLOCK_BYTES_MAX:
            return
        if len(self.young) >= self._half:
            self._old, self.young = self.young, {}
        self.young[key] = value


class BlockReader:
    """Decodes the blocks of one connection, in order.

    stateless: this peer has said that its table is empty, so that a block's meaning is in its bytes
        alone. One that never says so, though RFC 7541 (section 4.2) demands it, is served all the
        same, less fast: grpcio's servers do not say it in front of trailers alone.
    """

    __slots__ = ("_decoder", "stateless")

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEADER_LIST_BYTES_MAX)
        self.stateless = False

    def fields(self, block: bytes) -> list[Field]:
        """Names and values in order. Raises ConnectionFault: the table is lost with the block."""
        if self.stateless and (simple := literals(block, 0)) is not None:
            return [field for field, _ in simple]
        try:
            decoded = [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        except HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"a field block: {error}") from error
        self.stateless = self._decoder.header_table_size == 0
        return decoded


def literals(block: bytes, at: int) -> list[tuple[Field, int]] | None:
    """Each field of a block from `at` on, with where it ends; None if only `hpack` can tell.

    For blocks that need no table: static indexes and plain literals, which is all that gRPC peers
    send once the table is empty. Huffman coding, table updates, long integers and lists too large
    are left to the library.
    """
    found: list[tuple[Field, int]] = []
    size = len(block)
    listed = 0
    try:
        while at < size:
            first = block[at]
            at += 1
            if first >= 0x80:
                index = first & 0x7F
                if not 0 < index < len(STATIC_TABLE):
                    return None
                field = STATIC_TABLE[index]
            else:
                # With incremental indexing (6 bits of index), without, or never indexed (4 bits).
                index = first & 0x3F if first >= 0x40 else first & 0x0F
                if first < 0x40:
                    if first >= 0x20:
                        return None
                    if index == 0x0F:
                        index += block[at]
                        if index >= 0x80 + 0x0F:
                            return None
                        at += 1
                if index >= len(STATIC_TABLE):
                    return None
                if index:
                    name = STATIC_TABLE[index][0]
                else:
                    length = block[at]
                    if length >= 0x7F:
                        return None
                    name = block[at + 1 : at + 1 + length]
                    at += 1 + length
                length = block[at]
                at += 1
                if length >= 0x7F:
                    if length > 0x7F or block[at] >= 0x80:
                        return None
                    length += block[at]
                    at += 1
                field = (name, block[at : at + length])
                at += length
            listed += len(field[0]) + len(field[1]) + 32
            found.append((field, at))
    except IndexError:
        return None
    return found if at == size and listed <= HEADER_LIST_BYTES_MAX else None


def block_cache() -> TwoGenerations[_V]:
    return TwoGenerations(CACHED_BLOCKS_MAX)
