"""RocksDB after a write error that it does not get over by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

# The limit on files is one of a whole process, so the story gets one of its own.
STORY = """
import asyncio, pathlib, resource, sys
from storage.engine import RocksEngine
from wire.loop import LoopClock
from wire.ports import Batch, EngineError


def limit_files(soft):
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


async def commit(engine, sync=False, **values):
    done = asyncio.get_running_loop().create_future()
    batch = Batch({key.encode(): value for key, value in values.items()})
    engine.commit(batch, sync, lambda error: done.set_result(error))
    return await done


async def story():
    loop = asyncio.get_running_loop()
    engine = RocksEngine(pathlib.Path(sys.argv[1]), LoopClock(loop), loop.call_soon_threadsafe)
    assert await commit(engine, a=b"1", b=b"1", c=b"1") is None
    snapshot = engine.snapshot()
    under_way = snapshot.scan(b"a", b"z")
    assert next(under_way) == (b"a", b"1")

    limit_files(0)
    for sync in (False, True, False):
        error = await commit(engine, sync, a=b"2", d=b"2")
        assert isinstance(error, EngineError), error
    # It goes on reading, from snapshots too.
    assert (engine.get(b"a"), engine.get(b"d")) == (b"1", None)
    assert next(under_way) == (b"b", b"1")
    await asyncio.sleep(0.7)
    assert isinstance(await commit(engine, a=b"2"), EngineError), "nothing has healed"

    limit_files(resource.RLIM_INFINITY)
    while await commit(engine, e=b"3") is not None:
        await asyncio.sleep(0.05)
    # What failed has not come back, and what was read from the old files ends with a reason.
    assert dict(engine.scan(b"a", b"z")) == {b"a": b"1", b"b": b"1", b"c": b"1", b"e": b"3"}
    try:
        next(under_way)
    except EngineError as error:
        print(error)
    assert await commit(engine, sync=True, a=b"4") is None
    engine.close()


asyncio.run(story())
"""


def test_after_a_write_error_it_reads_on_and_is_opened_anew_once_the_device_takes_writes(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORY, str(tmp_path / "db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("the snapshot is closed\n", 0), done.stderr
