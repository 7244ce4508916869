"""What a cluster remembers between commands, and how its processes are told apart from others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from keyplane.cluster import (
    Cluster,
    ClusterConfig,
    Kind,
    Member,
    Paths,
    Timeouts,
    commands,
    ports,
    process,
    state,
)
from keyplane.lock import exclusive
from keyplane.model.errors import KeyplaneError, Reason


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "local")


def sleeper(paths: Paths, member: str, code: str = "import time; time.sleep(60)"):
    """A process that carries the cluster's id, as a member would."""
    env = dict(os.environ) | {process.CLUSTER_ID: paths.cluster_id, process.MEMBER: member}
    return process.spawn([sys.executable, "-c", code], env, Path("/"), paths.log(member))


def some_state() -> state.State:
    members = [
        Member("metadata", Kind.METADATA, "127.0.0.1:20001", "127.0.0.1:20002"),
        Member("granter", Kind.GRANTER, "127.0.0.1:20008", "127.0.0.1:20009"),
        Member("memds-1", Kind.MEMDS, "127.0.0.1:20003"),
        Member("storage-1", Kind.STORAGE, "127.0.0.1:20004", "127.0.0.1:20005"),
        Member("router-1", Kind.ROUTER, "127.0.0.1:20006", "127.0.0.1:20007"),
    ]
    return state.State("local", members={member.name: member for member in members})


def test_a_state_is_read_as_it_was_written_and_only_its_owner_may_read_it(paths: Paths) -> None:
    assert state.load(paths) is None
    written = some_state()
    written.members["router-1"].pid = 17
    state.save(paths, written)
    assert state.load(paths) == written
    assert paths.state.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", Reason.CORRUPT),
        ("[]", Reason.CORRUPT),
        ('{"format": 1, "name": "x"}', Reason.CORRUPT),
        ('{"format": 2}', Reason.FOREIGN_FORMAT),
    ],
)
def test_a_state_file_that_makes_no_sense_is_refused_with_the_way_out(
    paths: Paths, content: str, reason: Reason
) -> None:
    paths.root.mkdir()
    paths.state.write_text(content)
    with pytest.raises(KeyplaneError, match="keyplane down --wipe") as caught:
        state.load(paths)
    assert caught.value.reason is reason


def test_a_router_is_told_no_address_of_the_metadata_store_by_flag_or_environment(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I4."""
    monkeypatch.setenv("KEYPLANE_METADATA", "127.0.0.1:20001")
    known = some_state()
    router = known.members["router-1"]
    argv = commands.command(router, known, paths)
    env = commands.environment(router, paths)
    assert not any("20001" in word for word in argv)
    assert not any("20001" in value for value in env.values())
    assert "127.0.0.1:20004" in argv
    assert argv[argv.index("--granter") + 1] == "127.0.0.1:20008"


def test_a_granter_is_told_of_nobody_and_a_cluster_without_one_starts_as_before(
    paths: Paths,
) -> None:
    known = some_state()
    argv = commands.command(known.members["granter"], known, paths)
    assert not any(f"2000{number}" in word for number in range(1, 8) for word in argv)
    del known.members["granter"]
    assert "--granter" not in commands.command(known.members["router-1"], known, paths)


def test_without_memcached_the_error_says_what_to_install(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    known = some_state()
    with pytest.raises(KeyplaneError, match="apt-get install -y memcached") as caught:
        commands.command(known.members["memds-1"], known, paths)
    assert caught.value.reason is Reason.MEMCACHED_MISSING


def test_ports_are_free_distinct_and_below_those_of_outgoing_connections() -> None:
    picked = ports.pick(50)
    assert len(set(picked)) == 50
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert lowest_outgoing < 21_000 or max(picked) < lowest_outgoing
    assert not set(ports.pick(50, frozenset(picked))) & set(picked)


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    (port,) = ports.pick(1)
    with socket.create_server((ports.HOST, port)):
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_a_process_is_found_by_the_id_it_carries_whatever_the_files_say(paths: Paths) -> None:
    running = sleeper(paths, "router-1")
    other = sleeper(Paths(paths.root.with_name("other")), "router-1")
    try:
        assert process.belonging_to(paths.cluster_id) == [("router-1", running)]
    finally:
        process.kill([running, other])
    assert process.belonging_to(paths.cluster_id) == []


def test_a_recorded_number_that_another_process_has_now_is_not_taken_for_the_member() -> None:
    me = os.getpid()
    assert process.find(me, started=1.0) is None
    assert process.find(0, started=0.0) is None


def test_stopping_ends_processes_that_are_paused_or_deaf(paths: Paths) -> None:
    polite = sleeper(paths, "a")
    paused = sleeper(paths, "b")
    process.send(paused, signal.SIGSTOP)
    ready = paths.root / "ready"
    deaf = sleeper(
        paths,
        "c",
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)",
    )
    while not ready.exists():
        assert process.is_alive(deaf)
    assert process.stop([polite, paused, deaf], grace_s=0.5) == 1
    assert process.belonging_to(paths.cluster_id) == []


def test_down_ends_processes_of_a_cluster_whose_files_are_gone(tmp_path: Path) -> None:
    cluster = Cluster("lost", tmp_path, Timeouts(stop_s=5.0))
    sleeper(cluster.paths, "storage-1")
    sleeper(cluster.paths, "storage-2")
    result = cluster.down()
    assert result.stopped == 2
    assert process.belonging_to(cluster.paths.cluster_id) == []
    assert cluster.down().stopped == 0


def test_down_works_on_a_corrupt_state_and_leaves_the_evidence_unless_told_to_wipe(
    tmp_path: Path,
) -> None:
    cluster = Cluster("broken", tmp_path, Timeouts(stop_s=5.0))
    cluster.paths.root.mkdir()
    cluster.paths.state.write_text("{")
    sleeper(cluster.paths, "router-1")
    assert cluster.down().stopped == 1
    assert cluster.paths.state.exists()
    assert cluster.down(wipe=True).stopped == 0
    assert not cluster.paths.root.exists()


def test_what_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    cluster = Cluster("absent", tmp_path)
    with pytest.raises(KeyplaneError, match="keyplane up") as caught:
        cluster.status()
    assert caught.value.reason is Reason.CLUSTER_NOT_FOUND
    state.save(cluster.paths, some_state())
    with pytest.raises(KeyplaneError, match="it has: metadata, granter, memds-1") as caught:
        cluster.match(["router-9"])
    assert caught.value.reason is Reason.NODE_NOT_FOUND
    with pytest.raises(KeyplaneError, match="keyplane restart router-1") as caught:
        cluster.pause("router-1")
    assert caught.value.reason is Reason.NODE_UNAVAILABLE


@pytest.mark.parametrize("name", ["", "../up", "A", "a" * 41, "-x"])
def test_a_cluster_is_named_by_a_plain_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyplaneError, match="lower-case") as caught:
        Cluster(name, tmp_path)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_a_kind_stands_for_all_its_members_and_nobody_is_named_twice(tmp_path: Path) -> None:
    cluster = Cluster("local", tmp_path)
    state.save(cluster.paths, some_state())
    assert cluster.match(["router", "router-1", "memds"]) == ["router-1", "memds-1"]


def test_a_member_that_cannot_start_is_reported_with_its_log_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` fails as a whole: what it had started already is stopped again."""
    broken = tmp_path / "memcached"
    broken.write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cluster = Cluster("local", tmp_path, Timeouts(start_s=30.0))
    with pytest.raises(
        KeyplaneError, match=r"ended with code 1.*\n.*the disk is on fire"
    ) as caught:
        cluster.up(ClusterConfig(memds=1, routers=0, storage=0))
    assert caught.value.reason is Reason.START_FAILED
    assert process.belonging_to(cluster.paths.cluster_id) == []


def test_two_commands_do_not_change_a_cluster_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib; from keyplane.lock import exclusive\n"
        f"with exclusive(pathlib.Path({str(path)!r}), 5.0): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=commands.PACKAGES,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    busy = pytest.raises(KeyplaneError, match=f"kill {holder.pid}")
    with busy as caught, exclusive(path, timeout_s=0.1):
        pytest.fail("both hold it")
    assert caught.value.reason is Reason.CLUSTER_BUSY
    holder.kill()
    holder.communicate()
    with exclusive(path, timeout_s=5.0):
        pass
