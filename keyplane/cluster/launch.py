"""Starts members and waits until they serve, or says which did not and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil

from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.client.channels import CallSigner, serialize
from keyplane.cluster import process
from keyplane.cluster.commands import PACKAGES, command, environment
from keyplane.cluster.health import CHANNEL_OPTIONS, is_serving
from keyplane.cluster.state import Member, Paths, State, save
from keyplane.metadata.v1 import metadata_pb2
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError, Reason

# Exit code of a server whose port is taken.
_EXIT_PORT_TAKEN = 3

_LIST_NODES = "/keyplane.metadata.v1.MetadataService/ListNodes"

_POLL_S = 0.05
_LOG_LINES_SHOWN = 6

Say = Callable[[str], None]


def spawn(
    member: Member, state: State, paths: Paths, env: Mapping[str, str] | None = None
) -> psutil.Process:
    """Starts one member and records its process. Raises KeyplaneError(MEMCACHED_MISSING)."""
    argv = command(member, state, paths)
    paths.data(member.name).mkdir(parents=True, exist_ok=True)
    paths.run_file(member.name).parent.mkdir(exist_ok=True)
    paths.run_file(member.name).unlink(missing_ok=True)
    started = process.spawn(argv, environment(member, paths, env), PACKAGES, paths.log(member.name))
    member.pid, member.pid_started = started.pid, started.create_time()
    save(paths, state)
    return started


def wait_serving(
    started: Sequence[tuple[Member, psutil.Process]], paths: Paths, timeout_s: float, say: Say
) -> None:
    """Returns when all of them serve.

    Raises KeyplaneError: PORT_TAKEN when one found its port in use, START_FAILED when one ended or
    did not serve within `timeout_s`, with the end of its log.
    """
    waiting = list(started)
    give_up = time.monotonic() + timeout_s
    with ThreadPoolExecutor(max_workers=max(1, len(waiting))) as pool:
        while waiting:
            answers = pool.map(lambda pair: is_serving(pair[0], timeout_s=1.0), waiting)
            still = []
            for (member, running), serving in zip(waiting, answers, strict=True):
                # Asked after the probe: on a port that was taken, somebody else answers it.
                if not process.is_alive(running):
                    raise _ended(member, running, paths)
                if serving:
                    say(f"{member.name} serves at {member.address}")
                else:
                    still.append((member, running))
            waiting = still
            if waiting and time.monotonic() > give_up:
                raise _failed(waiting[0][0], f"does not serve after {timeout_s:.0f} s", paths)
            if waiting:
                time.sleep(_POLL_S)


def wait_registered(
    address: str, node_ids: Sequence[str], timeout_s: float, credentials: Credentials | None
) -> None:
    """Returns when the Metadata Store at `address` counts all these storage nodes as up.

    credentials: the operator's, where calls are signed. Raises KeyplaneError(START_FAILED) when it
    does not within `timeout_s`.
    """
    give_up = time.monotonic() + timeout_s
    missing = set(node_ids)
    signer = CallSigner(credentials)
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        ask: Any = channel.unary_unary(
            _LIST_NODES, serialize, metadata_pb2.ListNodesResponse.FromString
        )
        while time.monotonic() < give_up:
            message, metadata = signer.sign(_LIST_NODES, metadata_pb2.ListNodesRequest())
            try:
                answer = ask(message, timeout=2.0, metadata=metadata)
            except grpc.RpcError:
                time.sleep(_POLL_S)
                continue
            away = (pb.NODE_STATE_UNSPECIFIED, pb.NODE_STATE_SUSPECT)
            missing -= {row.node.node_id for row in answer.nodes if row.node.state not in away}
            if not missing:
                return
            time.sleep(_POLL_S)
    raise KeyplaneError(
        Reason.START_FAILED,
        f"storage nodes {', '.join(sorted(missing))} have not registered with the Metadata Store "
        "yet; their logs say what keeps them: keyplane logs storage",
    )


def port_taken(member: Member) -> KeyplaneError:
    return KeyplaneError(
        Reason.PORT_TAKEN,
        f"{member.name} cannot listen at {member.address}: another process took the port; stop "
        "that one, or run `keyplane down` and `keyplane up`, which moves to free ports",
    )


def _ended(member: Member, running: psutil.Process, paths: Paths) -> KeyplaneError:
    code = process.exit_code(running)
    log = _log_end(paths.log(member.name))
    if code == _EXIT_PORT_TAKEN or "Address already in use" in log:
        return port_taken(member)
    how = "ended" if code is None else f"ended with code {code}"
    return _failed(member, how, paths)


def _failed(member: Member, how: str, paths: Paths) -> KeyplaneError:
    path = paths.log(member.name)
    return KeyplaneError(
        Reason.START_FAILED, f"{member.name} {how}; the end of {path}:\n{_log_end(path)}"
    )


def _log_end(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES_SHOWN:])
