"""Checks of request fields. Each raises KeyplaneError(INVALID_ARGUMENT) with the remedy."""

from __future__ import annotations

import re

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import (
    KEY_NAME_BYTES_MAX,
    TABLE_UNITS_MAX,
    WARM_READ_UNITS,
    WARM_WRITE_UNITS,
)
from metadata.config import (
    HEARTBEAT_LOADS_MAX,
    LOAD_PER_SECOND_MAX,
    NODE_ID_CHARS_MAX,
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    PARTITIONS_MAX,
    REQUEST_ID_CHARS_MAX,
    SAMPLED_BINS_MAX,
    ZONE_CHARS_MAX,
)

_NODE_ID = re.compile(rf"[A-Za-z0-9_.-]{{1,{NODE_ID_CHARS_MAX}}}")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]{1,253}):([0-9]{1,5})")
_PORT_MAX = 65_535

_KEY_TYPES = (
    catalog.SCALAR_TYPE_STRING,
    catalog.SCALAR_TYPE_NUMBER,
    catalog.SCALAR_TYPE_BINARY,
)
_DURABILITIES = (catalog.DURABILITY_PROCESS, catalog.DURABILITY_POWER)
_CAPACITY_MODES = (
    catalog.CAPACITY_MODE_UNLIMITED,
    catalog.CAPACITY_MODE_ON_DEMAND,
    catalog.CAPACITY_MODE_PROVISIONED,
)


def check_new_table(request: pb.CreateTableRequest) -> None:
    if not request.HasField("partition_key"):
        raise invalid("a table needs a partition key: an attribute name and a type")
    check_key_attribute("partition key", request.partition_key)
    if request.HasField("sort_key"):
        check_key_attribute("sort key", request.sort_key)
        if request.sort_key.name == request.partition_key.name:
            raise invalid("partition key and sort key must be two different attributes")
    if request.partitions > PARTITIONS_MAX:
        raise invalid(
            f"{request.partitions} partitions are more than the {PARTITIONS_MAX:,} a table may have"
        )
    check_settings(request)
    if request.HasField("provisioned") and not request.capacity_mode:
        raise invalid("provisioned throughput is of the capacity mode PROVISIONED; name it")
    if request.HasField("on_demand") and not request.capacity_mode:
        raise invalid("maximum and warm throughput are of the capacity mode ON_DEMAND; name it")


def check_key_attribute(what: str, attribute: catalog.KeyAttribute) -> None:
    if not 1 <= len(attribute.name.encode()) <= KEY_NAME_BYTES_MAX:
        raise invalid(f"the name of the {what} must have 1 to {KEY_NAME_BYTES_MAX} bytes")
    if attribute.type not in _KEY_TYPES:
        raise invalid(f"the type of the {what} must be STRING, NUMBER or BINARY")


def check_settings(request: pb.CreateTableRequest | pb.UpdateTableRequest) -> None:
    """Those that are named."""
    if request.durability and request.durability not in _DURABILITIES:
        raise invalid("durability must be PROCESS or POWER")
    if request.capacity_mode and request.capacity_mode not in _CAPACITY_MODES:
        raise invalid("capacity_mode must be UNLIMITED, ON_DEMAND or PROVISIONED")
    is_provisioned = request.capacity_mode == catalog.CAPACITY_MODE_PROVISIONED
    if request.HasField("provisioned"):
        if request.capacity_mode and not is_provisioned:
            raise invalid(
                "only a table of the capacity mode PROVISIONED has provisioned throughput"
            )
        check_throughput(request.provisioned)
    elif is_provisioned:
        raise invalid(
            "a PROVISIONED table needs provisioned throughput: how many read and write units a"
            " second it may use"
        )
    if request.HasField("on_demand"):
        if request.capacity_mode not in (0, catalog.CAPACITY_MODE_ON_DEMAND):
            raise invalid(
                "only a table of the capacity mode ON_DEMAND has maximum and warm throughput"
            )
        check_on_demand(request.on_demand)


def check_on_demand(on_demand: catalog.OnDemandThroughput) -> None:
    if not on_demand.ListFields():
        raise invalid("name the maximum or warm read or write units that the table is to have")
    for kind, most, warm, start in (
        ("read", on_demand.max_read_units, on_demand.warm_read_units, WARM_READ_UNITS),
        ("write", on_demand.max_write_units, on_demand.warm_write_units, WARM_WRITE_UNITS),
    ):
        if most > TABLE_UNITS_MAX:
            raise invalid(
                f"{most:,} {kind} units a second at most: a maximum is up to"
                f" {TABLE_UNITS_MAX:,}, and 0 for none"
            )
        if not on_demand.HasField("warm_read_units" if kind == "read" else "warm_write_units"):
            continue
        if not start <= warm <= TABLE_UNITS_MAX:
            raise invalid(
                f"{warm:,} warm {kind} units a second: an on-demand table has {start:,} already,"
                f" and may be given up to {TABLE_UNITS_MAX:,}"
            )
        if 0 < most < warm:
            raise invalid(
                f"{warm:,} warm {kind} units a second are of no use with a maximum of {most:,}"
            )


def check_throughput(provisioned: catalog.ProvisionedThroughput) -> None:
    for kind, units in (
        ("read", provisioned.read_capacity_units),
        ("write", provisioned.write_capacity_units),
    ):
        if not 1 <= units <= TABLE_UNITS_MAX:
            raise invalid(
                f"{units} {kind} capacity units a second: a table has 1 to {TABLE_UNITS_MAX:,}"
            )


def check_node(node: catalog.Node) -> None:
    check_node_id(node.node_id)
    match = _ADDRESS.fullmatch(node.address)
    if match is None or not 1 <= int(match.group(2)) <= _PORT_MAX:
        raise invalid(f"node address {node.address[:80]!r} must be host:port, as 10.0.0.7:7000")
    if len(node.zone) > ZONE_CHARS_MAX or not node.zone.isprintable():
        raise invalid(f"a zone is up to {ZONE_CHARS_MAX} printable characters")


def check_node_id(node_id: str) -> None:
    if _NODE_ID.fullmatch(node_id) is None:
        raise invalid(
            f"node id {node_id[:80]!r} must be 1 to {NODE_ID_CHARS_MAX} characters of "
            "a-z, A-Z, 0-9, '_', '-' and '.'"
        )


def check_heartbeat(request: pb.HeartbeatRequest) -> None:
    check_node_id(request.node_id)
    if len(request.loads) > HEARTBEAT_LOADS_MAX:
        raise invalid(
            f"{len(request.loads)} loads in a heartbeat; send at most {HEARTBEAT_LOADS_MAX:,}"
        )
    for load in request.loads:
        _check_load(load)


def _check_load(load: pb.PartitionLoad) -> None:
    if len(load.sampled) > SAMPLED_BINS_MAX:
        raise invalid(
            f"{len(load.sampled)} parts of partition {load.partition_id};"
            f" {SAMPLED_BINS_MAX} at most"
        )
    for rate in (
        load.reads_per_second,
        load.writes_per_second,
        load.read_units_per_second,
        load.write_units_per_second,
        load.throttled_reads_per_second,
        load.throttled_writes_per_second,
    ):
        # A number that is none fails both comparisons.
        if not 0.0 <= rate <= LOAD_PER_SECOND_MAX:
            raise invalid(
                f"{rate} a second is no load that partition {load.partition_id} can have; nothing"
                " of this heartbeat was taken"
            )


def check_request_id(request_id: str) -> None:
    if len(request_id) > REQUEST_ID_CHARS_MAX or not request_id.isprintable():
        raise invalid(f"a request id is up to {REQUEST_ID_CHARS_MAX} printable characters")


def page_size(asked: int) -> int:
    """0 stands for the default. Raises KeyplaneError(INVALID_ARGUMENT) past the bound."""
    if asked > PAGE_SIZE_MAX:
        raise invalid(f"page_size {asked} is more than {PAGE_SIZE_MAX:,}")
    return asked or PAGE_SIZE_DEFAULT


def invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
