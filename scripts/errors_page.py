"""Prints docs/errors.md, made from the error table. Run by scripts/gen-docs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from keyplane.client.errors import error_class
from keyplane.model.errors import Reason

HEAD = """\
<!-- Written by scripts/gen-docs from keyplane/model/errors.py. Change that, not this. -->

# Errors

Every error that leaves a Keyplane process has a reason from this one table. On the wire it is a
gRPC status whose details carry a `google.rpc.ErrorInfo` (domain `keyplane`, the reason's name), and
a `RetryInfo` where waiting helps.

* **definite**: nothing was done. **indefinite**: it may have been done; read before you decide.
* **retry**: the same request may succeed later, or elsewhere. The client SDK does this by itself,
  within the call's deadline; a write is retried only under its token, so never done twice.
* **class**: what the Python SDK raises; all of them are `KeyplaneError`.
* **HTTP, DynamoDB**: what the same error is called in DynamoDB's JSON protocol. No such endpoint
  exists yet; the columns fix its answers.

Messages name the remedy. The command line prints reason and message, and exits with 3 after a
definite error and 4 after an indefinite one.
"""

# Each begins with the first reason of its group, in the order of the table.
GROUPS = {
    "MALFORMED_REQUEST": "The request is wrong",
    "MISSING_CREDENTIALS": "Who calls, and what they may do",
    "TABLE_NOT_FOUND": "What it names is missing, busy or in another state",
    "STALE_ROUTE": "Routing",
    "THROTTLED": "Too much at once",
    "DEADLINE_BEFORE_START": "Time",
    "CONNECTION_LOST": "Nobody can say whether it was done",
    "CLUSTER_NOT_FOUND": "Processes and commands on this machine",
    "CORRUPT": "Stored bytes that are not what was written",
}

MEANING = {
    "MALFORMED_REQUEST": "the bytes are not a message of the expected type",
    "INVALID_ARGUMENT": "a field has a value that is not allowed; the message says which",
    "WRONG_KEY_TYPE": "a key attribute is not of the type the table declares",
    "MISSING_KEY": "a key attribute is missing",
    "ITEM_TOO_LARGE": "an item is over 400 KB",
    "BATCH_TOO_LARGE": "more than 100 reads or 25 writes in one batch, or too many bytes",
    "SPLIT_KEY_OUTSIDE_RANGE": "the hash to split at is not inside the partition",
    "NOT_NEIGHBOURS": "only partitions side by side can be merged",
    "UNKNOWN_METHOD": "the server has no such method",
    "FAULTS_DISABLED": "the process was not started with fault injection",
    "CALLER_NOT_LOCAL": "faults are taken from callers on the same machine only",
    "MISSING_CREDENTIALS": "the server requires a signature, and the call has none",
    "UNKNOWN_KEY": "no user has a key of that id, as far as this server knows",
    "BAD_SIGNATURE": "the signature is not of this call, or made with another secret",
    "SIGNATURE_EXPIRED": "it was signed too long ago or in the future; the message says how much",
    "REPLAYED": "a call with this signature has been seen before",
    "TENANT_SUSPENDED": "the tenant's calls are refused until it is resumed",
    "ROLE_NOT_ALLOWED": "the user's role does not allow the call",
    "TABLE_NOT_FOUND": "there is no such table, or it has been deleted",
    "PARTITION_NOT_FOUND": "there is no such partition; splits and merges retire ids",
    "NODE_NOT_FOUND": "there is no such storage node",
    "FAULT_NOT_FOUND": "no fault of that id is on",
    "OPERATION_NOT_FOUND": "there is no such operation",
    "TENANT_NOT_FOUND": "there is no such tenant",
    "USER_NOT_FOUND": "the tenant has no such user",
    "TENANT_EXISTS": "a tenant of that name exists",
    "USER_EXISTS": "the tenant has a user of that name",
    "TENANT_NOT_EMPTY": "a tenant that has tables cannot be deleted",
    "NO_CLUSTER_SECRET": "the server was started without the cluster's secret",
    "TABLE_EXISTS": "a table of that name exists",
    "OPERATION_EXISTS": "an operation of that id exists, and is a different one",
    "TABLE_BUSY": "the table is being created or deleted",
    "PARTITION_BUSY": "another operation has the partition",
    "NODE_UNAVAILABLE": "the storage node is not heard from, or is being drained",
    "NO_STORAGE_NODES": "no storage node is up to take partitions",
    "LOAD_UNKNOWN": "too few requests were seen to tell where the load is",
    "SPLIT_WOULD_NOT_HELP": "its load or its data cannot be halved: one key has nearly all of it,"
    " or the load moves",
    "ILLEGAL_TRANSITION": "it is not in a state from which this can be done",
    "CONDITION_FAILED": "the item is not as the write's condition demands",
    "STALE_ROUTE": "the partition is elsewhere now; carries where",
    "NOT_SERVING": "the node has the partition and does not serve it at the moment",
    "NO_ROUTE": "no source knows who serves the key",
    "NODE_UNREACHABLE": "no connection could be made, so nothing was sent",
    "THROTTLED": "a limit on capacity units is reached; the metadata names it in DynamoDB's words",
    "OVERLOADED": "a queue is full; the request was refused before any work",
    "LIMIT_EXCEEDED": "there are as many of these as may be, or a table's capacity was changed too"
    " often; the message says of what, or till when",
    "RETRY_BUDGET_SPENT": "retrying on would add to the trouble",
    "MEMDS_UNAVAILABLE": "no memcached node answers",
    "SHUTTING_DOWN": "the process is finishing what it has and takes nothing new",
    "DEADLINE_BEFORE_START": "the deadline had passed before anything was done",
    "DEADLINE_EXCEEDED": "no answer in time",
    "CANCELLED": "the caller gave up",
    "CONNECTION_LOST": "the connection broke with the request under way",
    "RETRY_NOT_COVERED": "a retry of a write from before all that the node remembers",
    "WRITE_ERROR": "the storage device refused the batch that the write was in",
    "DATABASE_ERROR": "the Metadata Store's database failed",
    "INTERNAL": "a fault in Keyplane; the log has the traceback",
    "CLUSTER_NOT_FOUND": "no cluster of that name has been started here",
    "CLUSTER_BUSY": "another command is changing the same cluster",
    "RUN_BUSY": "another command is at work in the same directory of a run",
    "MEMCACHED_MISSING": "memcached is not installed",
    "PORT_TAKEN": "another program listens at a port that a member needs",
    "START_FAILED": "a process did not come to serve; the message names its log",
    "CORRUPT": "a checksum does not match",
    "FOREIGN_FORMAT": "written by something else, or by a version this one cannot read",
    "MAP_INVALID": "a partition map with a gap, an overlap or a foreign partition",
    "DIGEST_MISMATCH": "the two ends of a move do not have the same items; it is aborted",
}


def page() -> Iterator[str]:
    yield HEAD
    for reason in Reason:
        if reason.name in GROUPS:
            yield f"\n## {GROUPS[reason.name]}\n"
            yield "| reason | means | gRPC | | retry | class | HTTP, DynamoDB |"
            yield "|---|---|---|---|---|---|---|"
        yield (
            f"| `{reason.name}` | {MEANING[reason.name]} | `{reason.code.name}` "
            f"| {'definite' if reason.definite else '**indefinite**'} "
            f"| {'yes' if reason.retryable else 'no'} | `{error_class(reason).__name__}` "
            f"| {reason.http_status} `{reason.dynamodb_name}` |"
        )


if __name__ == "__main__":
    unexplained = {reason.name for reason in Reason} ^ MEANING.keys()
    if unexplained:
        sys.exit(f"scripts/errors_page.py: MEANING and the table differ in {sorted(unexplained)}")
    sys.stdout.write("\n".join(page()) + "\n")
