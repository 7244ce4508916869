"""Files are replaced whole, in the order of the calls, and a failure leaves the old one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from wire.files import WRITES_MAX, FileDisk, replace_file


def run_with_disk(directory: Path, story: Callable[[FileDisk], asyncio.Future[None]]) -> None:
    async def run() -> None:
        disk = FileDisk(directory)
        try:
            await story(disk)
        finally:
            disk.close()

    asyncio.run(run())


async def write(disk: FileDisk, name: str, content: bytes) -> OSError | None:
    done: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    disk.write_atomic(name, content, done.set_result)
    assert not done.done(), "a callback never runs inside the call that took it"
    return await done


def test_what_was_written_is_read_back_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    async def story(disk: FileDisk) -> None:
        assert disk.read("map") is None
        assert await write(disk, "map", b"one") is None
        assert await write(disk, "map", b"two") is None
        assert disk.read("map") == b"two"

    run_with_disk(tmp_path / "made" / "here", story)
    assert [path.name for path in (tmp_path / "made" / "here").iterdir()] == ["map"]


def test_writes_happen_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async def story(disk: FileDisk) -> None:
        assert (
            await asyncio.gather(*(write(disk, "map", b"%d" % n) for n in range(10))) == [None] * 10
        )
        assert disk.read("map") == b"9"

    run_with_disk(tmp_path, story)


def test_a_write_that_fails_says_so_and_keeps_the_old_content(tmp_path: Path) -> None:
    async def story(disk: FileDisk) -> None:
        await write(disk, "map", b"old")
        # In the way of the new file, for root too.
        (tmp_path / "map.new").mkdir()
        error = await write(disk, "map", b"new")
        assert isinstance(error, IsADirectoryError)
        assert disk.read("map") == b"old"
        (tmp_path / "map.new").rmdir()
        assert await write(disk, "map", b"new") is None

    run_with_disk(tmp_path, story)


def test_writes_past_the_bound_fail_at_once(tmp_path: Path) -> None:
    async def story(disk: FileDisk) -> None:
        # None of these can end before the event loop gets to it.
        results = await asyncio.gather(*(write(disk, "f", b"x") for _ in range(WRITES_MAX + 3)))
        assert [error is not None for error in results] == [False] * WRITES_MAX + [True] * 3
        assert await write(disk, "f", b"y") is None

    run_with_disk(tmp_path, story)


def test_a_read_error_is_not_taken_for_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "map").mkdir()

    async def story(disk: FileDisk) -> None:
        with pytest.raises(IsADirectoryError):
            disk.read("map")

    run_with_disk(tmp_path, story)


@pytest.mark.parametrize("name", ["../map", "a/b", "", ".", "..", "/etc/passwd"])
def test_names_do_not_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    async def story(disk: FileDisk) -> None:
        with pytest.raises(ValueError):
            disk.read(name)

    run_with_disk(tmp_path, story)


def test_a_file_may_be_replaced_without_an_event_loop(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        replace_file(tmp_path / "run.json", content)
    assert (tmp_path / "run.json").read_bytes() == b"new"
