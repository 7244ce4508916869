"""The command line: what it prints where, what it exits with, and that it explains itself."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cli import render
from keyplane.cli.main import app, main
from keyplane.model.partition import KEYSPACE_END, Partition


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path, those of sub-groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands_of(typer.main.get_command(app)))


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster is found by accident."""
    monkeypatch.setenv("KEYPLANE_HOME", str(tmp_path))
    for name in ("CLUSTER", "ROUTERS", "METADATA", "TABLE", "KEY_ID", "SECRET"):
        monkeypatch.delenv(f"KEYPLANE_{name}", raising=False)


def test_the_commands_are_these() -> None:
    assert {" ".join(path) for path in ALL} == {
        *("up", "down", "status", "kill", "pause", "resume", "restart", "logs", "add-router"),
        *("route", "get", "put", "delete", "split", "merge", "move", "drain", "plan", "top"),
        *(
            "table create",
            "table update",
            "table list",
            "table describe",
            "table delete",
            "table partitions",
        ),
        *("tenant create", "tenant list", "tenant describe", "tenant limits", "tenant suspend"),
        *("tenant resume", "tenant delete"),
        *("user create", "user list", "user delete", "user rotate-key"),
        *("operation list", "operation show", "workload run", "workload verify"),
        *("history check", "history show"),
        *("sim run", "sim replay", "sim mutants", "sim profiles"),
        *("fleet list", "fleet show", "fleet run", "fleet report"),
        *("fleet sweep", "fleet optimise"),
        *("fleet calibrate", "fleet validate", "fleet design check"),
        *("fault kill", "fault pause", "fault restart", "fault partition", "fault latency"),
        *("fault drop", "fault duplicate", "fault slow-disk", "fault full-disk", "fault list"),
        *("fault heal", "fault memds flush", "fault memds down", "fault memds stale"),
        *("fault memds corrupt", "fault memds slow", "fault metadata down", "fault metadata lag"),
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_says_what_it_does_takes_json_and_shows_examples_of_itself(
    path: tuple[str, ...],
) -> None:
    command = ALL[path]
    assert command.help
    options = {option for parameter in command.params for option in parameter.opts}
    # Simulations and models need no cluster.
    common = {"--json"} if path[0] in ("sim", "fleet") else {"--json", "--cluster", "--data-dir"}
    assert common <= options
    title, *examples = [line.strip() for line in command.epilog.splitlines() if line.strip()]
    assert title == "Examples:"
    assert examples
    for example in examples:
        assert f"keyplane {' '.join(path)}" in example


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_example_is_one_the_command_would_take(path: tuple[str, ...]) -> None:
    """Parsed, not run; what is set off by two spaces or a shell operator is not part of it."""
    for line in ALL[path].epilog.splitlines()[2:]:
        text = line.strip().replace("\\[", "[")
        for part in text.split(" | ")[0].split(" && "):
            words = shlex.split(part.split("   ")[0])
            arguments = words[1 + len(path) :]
            if tuple(words[1 : 1 + len(path)]) == path and "..." not in words:
                ALL[path].make_context("keyplane", arguments, resilient_parsing="jsonl" in text)


def test_an_error_with_json_is_one_object_on_the_last_line_of_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status", "--json"]) == 3
    printed = capsys.readouterr()
    error = json.loads(printed.out.splitlines()[-1])["error"]
    assert error["reason"] == "CLUSTER_NOT_FOUND"
    assert "keyplane up" in error["message"]
    assert "CLUSTER_NOT_FOUND" in printed.err


def test_an_error_without_json_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "user-1"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "keyplane up" in printed.err


@pytest.mark.parametrize(
    "arguments",
    [["status", "--bogus"], ["move", "3"], ["split", "three"], ["up", "--routers", "0"], ["fly"]],
    ids=" ".join,
)
def test_wrong_arguments_exit_with_2_and_say_where_help_is(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["reason"] == "USAGE"
    assert "--help" in printed.err


def test_down_of_nothing_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"stopped": 0, "killed": 0}


def test_no_router_that_answers_is_told_from_a_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """KEYPLANE_ROUTERS names routers of a cluster that was started elsewhere."""
    monkeypatch.setenv("KEYPLANE_METADATA", "127.0.0.1:1")
    assert main(["table", "list", "--json"]) in (3, 4)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["reason"] in (
        "NODE_UNREACHABLE",
        "CONNECTION_LOST",
    )


MUSIC = catalog.Table(
    name="music",
    partition_key=catalog.KeyAttribute(name="artist", type=catalog.SCALAR_TYPE_STRING),
    sort_key=catalog.KeyAttribute(name="year", type=catalog.SCALAR_TYPE_NUMBER),
)


def test_a_key_is_a_bare_value_with_a_sort_key_beside_it_or_an_object() -> None:
    assert render.parse_key("Can", "1971", MUSIC) == {"artist": "Can", "year": Decimal(1971)}
    assert render.parse_key('{"artist": "Can", "year": 1971}', None, MUSIC) == {
        "artist": "Can",
        "year": 1971,
    }
    with pytest.raises(ValueError, match="is a number"):
        render.parse_key("Can", "early", MUSIC)
    with pytest.raises(ValueError, match="no sort key"):
        render.parse_key("a", "b", catalog.Table(name="t", partition_key=MUSIC.partition_key))


def test_a_key_attribute_is_a_name_and_perhaps_a_type() -> None:
    assert render.key_attribute("id").type == catalog.SCALAR_TYPE_STRING
    assert render.key_attribute("at:number") == catalog.KeyAttribute(
        name="at", type=catalog.SCALAR_TYPE_NUMBER
    )
    for bad in ("", ":number", "at:float"):
        with pytest.raises(ValueError, match="NAME"):
            render.key_attribute(bad)


def test_values_are_shown_in_the_types_that_json_has() -> None:
    item = {"n": Decimal("1.5"), "i": Decimal(2), "b": b"\x00", "s": {"b", "a"}, "l": [None, True]}
    assert render.plain(item) == {
        "n": 1.5,
        "i": 2,
        "b": "AA==",
        "s": ["a", "b"],
        "l": [None, True],
    }


@given(start=st.integers(0, KEYSPACE_END - 2), length=st.integers(1, KEYSPACE_END))
def test_a_partition_is_shown_by_its_first_and_last_hash(start: int, length: int) -> None:
    end = min(start + length, KEYSPACE_END)
    shown = render.partition_facts(Partition(1, 1, start, end, 1, "storage-1").to_proto())
    assert int(shown["first_hash"], 16) == start
    assert int(shown["last_hash"], 16) == end - 1
