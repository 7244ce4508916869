"""Tables as a router knows them: schema, routes, tombstones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from cache.partition_map import PartitionMap
from cache.routes import Route, RouteTable, Source
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.keys import KeySchema, ScalarType, encode_raw, key_hash, type_tag
from keyplane.model.limits import PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX
from keyplane.model.partition import Partition
from keyplane.model.tenants import prefix_of, tenant_of
from router.admission import TableLimits
from wire.protobytes import tag_byte

_FIELD_NUMBERS = {
    pb.SCALAR_TYPE_STRING: data.AttributeValue.S_FIELD_NUMBER,
    pb.SCALAR_TYPE_BINARY: data.AttributeValue.B_FIELD_NUMBER,
}

# From the limits that a table had so far, the table, and the version of its map.
LimitsOf: TypeAlias = Callable[["TableLimits | None", pb.Table, int], "TableLimits | None"]

# Tombstones kept. Past it the oldest are forgotten, and found again by a search.
TOMBSTONES_MAX = 10_000


class PlainKeyPart:
    """One attribute of a key, of type S or B.

    name: serialized. field: the byte that a value of its type begins with.
    """

    __slots__ = ("_head", "bytes_max", "field", "name")

    def __init__(self, name: str, type_: ScalarType, bytes_max: int) -> None:
        self.name = name.encode()
        self.field = tag_byte(_FIELD_NUMBERS[type_], 2)
        self.bytes_max = bytes_max
        self._head = type_tag(type_)

    def encode(self, raw: bytes) -> bytes:
        """As a part of an encoded key."""
        return encode_raw(self._head, raw)


class KnownTable:
    """One table: what its keys look like, and where they live.

    prefix: of its name inside the cluster, which says whose it is; empty of the tenant `local`.
    """

    __slots__ = (
        *("_described_by", "_hash_seed", "_limits", "_limits_of", "_plain_key", "_schema"),
        *("prefix", "routes"),
    )

    def __init__(self, routes: RouteTable, limits_of: LimitsOf | None = None) -> None:
        """limits_of: what makes the limits of tables that have any.

        Raises KeyplaneError(INVALID_ARGUMENT) on a table whose key is not well defined.
        """
        self.routes = routes
        self.prefix = prefix_of(tenant_of(routes.table.name))
        self._limits_of = limits_of
        self._limits: TableLimits | None = None
        self._describe()

    def _describe(self) -> None:
        self._described_by = self.routes.table
        self._schema = KeySchema.from_table(self._described_by)
        self._plain_key = _plain_key(self._schema)
        self._hash_seed = self._described_by.hash_seed
        if self._limits_of is not None:
            routes = self.routes
            self._limits = self._limits_of(self._limits, routes.table, routes.version)

    @property
    def name(self) -> str:
        return self.routes.table.name

    @property
    def table_id(self) -> int:
        return self.routes.table.table_id

    @property
    def schema(self) -> KeySchema:
        if self.routes.table is not self._described_by:
            self._describe()
        return self._schema

    @property
    def plain_key(self) -> list[PlainKeyPart]:
        """The schema for those that read keys as bytes: empty if a part of it is a number."""
        if self.routes.table is not self._described_by:
            self._describe()
        return self._plain_key

    @property
    def limits(self) -> TableLimits | None:
        """None if the table may be used without."""
        if self.routes.table is not self._described_by:
            self._describe()
        return self._limits

    def hash_of(self, partition_bytes: bytes) -> int:
        if self.routes.table is not self._described_by:
            self._describe()
        return key_hash(self._hash_seed, partition_bytes)

    def lookup(self, hash_: int) -> Route | None:
        return self.routes.lookup(hash_)

    def partition_of(self, hash_: int) -> Partition | None:
        """As `lookup`, without where it is known from."""
        return self.routes.partition_of(hash_)


class Tables:
    """All tables by name. A table goes away only by a tombstone that names it.

    A table created again under an old name has a higher table id, and replaces the old one whole.
    """

    def __init__(self, limits_of: LimitsOf | None = None) -> None:
        """limits_of: as of KnownTable."""
        self._limits_of = limits_of
        self._tables: dict[str, KnownTable] = {}
        # Name to the highest table id known to be deleted.
        self._tombstones: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._tables)

    def find(self, name: str) -> KnownTable | None:
        """The table, if it is known and there."""
        return self._tables.get(name)

    def get(self, name: str) -> KnownTable | None:
        """As `find`. Raises KeyplaneError(TABLE_NOT_FOUND) if the table is known to be deleted."""
        known = self._tables.get(name)
        if known is None and name in self._tombstones:
            raise KeyplaneError(Reason.TABLE_NOT_FOUND, f"table {name!r} has been deleted")
        return known

    def all(self) -> list[KnownTable]:
        return [self._tables[name] for name in sorted(self._tables)]

    def names(self) -> Iterable[str]:
        return self._tables.keys()

    def adopt(self, routes: RouteTable) -> None:
        """Starts from a snapshot's routes of a table. Raises KeyplaneError(INVALID_ARGUMENT)."""
        self._tables[routes.table.name] = KnownTable(routes, self._limits_of)

    def install_map(self, map: PartitionMap, source: Source, now: float) -> bool:
        """Takes a map over unless something newer is here. True if it changed anything."""
        known = self.know(map.table)
        return known is not None and known.routes.install_map(map, source, now)

    def install_partitions(
        self, table: pb.Table, partitions: Iterable[Partition], source: Source
    ) -> bool:
        """Takes over what storage nodes say of a table. True if it changed anything."""
        known = self.know(table)
        mine = [each for each in partitions if each.table_id == table.table_id]
        return known is not None and known.routes.install_hint(mine, source)

    def know(self, table: pb.Table) -> KnownTable | None:
        """The table with this id, made if it is new; None if it is older than what is known.

        Raises KeyplaneError(INVALID_ARGUMENT) on a table whose key is not well defined.
        """
        if table.table_id <= self._tombstones.get(table.name, 0):
            return None
        known = self._tables.get(table.name)
        if known is None or known.table_id < table.table_id:
            known = KnownTable(RouteTable(table), self._limits_of)
            self._tables[table.name] = known
        return known if known.table_id == table.table_id else None

    def bury(self, name: str, table_id: int | None = None) -> bool:
        """Takes a tombstone over: of one table id, or of whatever has the name now."""
        known = self._tables.get(name)
        if table_id is None:
            table_id = known.table_id if known is not None else 0
        if table_id < self._tombstones.get(name, 0):
            return False
        if known is not None and known.table_id <= table_id:
            del self._tables[name]
        self._tombstones[name] = table_id
        if len(self._tombstones) > TOMBSTONES_MAX:
            del self._tombstones[next(iter(self._tombstones))]
        return True


def read_partitions(messages: Sequence[pb.Partition]) -> list[Partition]:
    """Raises KeyplaneError(MALFORMED_REQUEST) on a partition that is none."""
    return [Partition.from_proto(message) for message in messages]


def _plain_key(schema: KeySchema) -> list[PlainKeyPart]:
    types = [schema.partition_type] + [schema.sort_type] * (schema.sort is not None)
    if not _FIELD_NUMBERS.keys() >= set(types):
        return []
    parts = [PlainKeyPart(schema.partition, schema.partition_type, PARTITION_KEY_BYTES_MAX)]
    if schema.sort is not None:
        parts.append(PlainKeyPart(schema.sort, schema.sort_type, SORT_KEY_BYTES_MAX))
    return parts
