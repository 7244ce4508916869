"""What is known about a cluster between two commands: one JSON file, replaced whole.

There is no supervisor. Any command may be killed at any time, so the file never has to be right:
processes carry the cluster's id in their environment and are found by that, too.
"""

from __future__ import annotations

import enum
import json
import os
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from keyplane.model.errors import KeyplaneError, Reason
from wire.auth import Auth
from wire.transports import TransportKind

_FORMAT = 1


class Kind(enum.StrEnum):
    METADATA = "metadata"
    GRANTER = "granter"
    MEMDS = "memds"
    STORAGE = "storage"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a cluster keeps its files. `root` is absolute."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "cluster.json"

    @property
    def lock(self) -> Path:
        """Outlives the cluster's directory, which `down` may delete while it holds the lock."""
        return self.root.with_name(f".{self.root.name}.lock")

    @property
    def secret(self) -> Path:
        """The cluster's secret, for its owner alone."""
        return self.root / "cluster.secret"

    def data(self, member: str) -> Path:
        return self.root / "data" / member

    def log(self, member: str) -> Path:
        return self.root / "logs" / f"{member}.log"

    def run_file(self, member: str) -> Path:
        return self.root / "run" / f"{member}.json"

    @property
    def cluster_id(self) -> str:
        """Follows from the path, so that processes are found even when every file is gone."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.root.as_uri()))


@dataclass(slots=True)
class Member:
    """One process. Addresses are kept for ever; the process changes.

    pid, pid_started: 0 when it has never run. The start time tells a process from a later one that
        was given the same number.
    metrics_address: empty for memcached.
    """

    name: str
    kind: Kind
    address: str
    metrics_address: str = ""
    pid: int = 0
    pid_started: float = 0.0


@dataclass(slots=True)
class State:
    name: str
    ephemeral: bool = False
    database_url: str = ""
    enable_faults: bool = False
    transport: TransportKind = TransportKind.HTTP2
    auth: Auth = Auth.OFF
    created_at: float = field(default_factory=time.time)
    members: dict[str, Member] = field(default_factory=dict)

    def of_kind(self, kind: Kind) -> list[Member]:
        return [member for member in self.members.values() if member.kind is kind]

    def addresses(self, kind: Kind) -> list[str]:
        return [member.address for member in self.of_kind(kind)]


def load(paths: Paths) -> State | None:
    """None if there is no such cluster. Raises KeyplaneError(CORRUPT, FOREIGN_FORMAT)."""
    try:
        raw = json.loads(paths.state.read_bytes())
        if raw["format"] != _FORMAT:
            raise KeyplaneError(
                Reason.FOREIGN_FORMAT,
                f"{paths.state} was written by another version of Keyplane; stop the cluster with "
                "that one, or run `keyplane down --wipe`, which deletes its data",
            )
        members = [Member(**{**row, "kind": Kind(row["kind"])}) for row in raw["members"]]
        return State(
            name=raw["name"],
            ephemeral=raw["ephemeral"],
            database_url=raw["database_url"],
            enable_faults=raw.get("enable_faults", False),
            transport=TransportKind(raw.get("transport", TransportKind.HTTP2)),
            auth=Auth(raw.get("auth", Auth.OFF)),
            created_at=raw["created_at"],
            members={member.name: member for member in members},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise KeyplaneError(
            Reason.CORRUPT,
            f"{paths.state} cannot be read ({error}); `keyplane down --wipe` stops what runs and "
            "deletes the cluster with its data",
        ) from error


def save(paths: Paths, state: State) -> None:
    """A reader sees the old file or the new one, whole. Only the owner may read it: it can hold a
    database password."""
    content = {
        "format": _FORMAT,
        "name": state.name,
        "ephemeral": state.ephemeral,
        "database_url": state.database_url,
        "enable_faults": state.enable_faults,
        "transport": state.transport,
        "auth": state.auth,
        "created_at": state.created_at,
        "members": [asdict(member) for member in state.members.values()],
    }
    paths.root.mkdir(parents=True, exist_ok=True)
    temporary = paths.state.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=1)
    temporary.replace(paths.state)
