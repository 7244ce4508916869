"""RocksDB behind the Engine port.

The binding is rocksdict: of those on PyPI it alone ships RocksDB inside its wheels *and* has what
the port needs (atomic batches with range deletes, a sync flag per batch, bounded iterators, type
stubs). amulet-rocksdb has no batches and no sync; rocksdb-ng needs a compiler and an installed
librocksdb; easyrocks builds on rocksdict.

The write-ahead log is always on, so an unsynced batch is in the operating system's hands when its
write returns, and a synced one is on the device. A full disk makes RocksDB refuse writes; it
resumes by itself some five seconds after as much as its write buffers has been freed. After any
other write error it would stay read-only for ever, so this engine then opens it anew as soon as the
device takes writes again, and until then goes on reading.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from storage.layout import ITEM_TAG
from storage.rows import RowCache
from wire.ports import Batch, Clock, EngineError

# Memory for blocks read from files, shared by everything in the process.
BLOCK_CACHE_BYTES = 64 << 20
# Memory for items that were read or written lately, as they are.
ROW_CACHE_BYTES = 96 << 20
# Writes are kept in memory in buffers of this size. A small one stays in the processor's cache: to
# put something into it costs a third less than into one of 32 MB.
WRITE_BUFFER_BYTES = 4 << 20
# So many become a file together, so that files are no smaller for it. Of what was written more than
# once the file has the last.
FLUSHED_BUFFERS = 8
# Writes wait when so many are full.
WRITE_BUFFERS_MAX = 16
# How far RocksDB's own threads stand behind requests for a processor, as nice(2) counts. Else a
# flush takes one for a quarter of a second, while requests pile up; so it takes a part of one for
# longer, and still keeps up.
BACKGROUND_NICENESS = 5
# Bounds the log that a restart must read, and with it the time that a restart takes.
WAL_BYTES_MAX = 128 << 20
# RocksDB's own text logs, which nothing else would delete.
INFO_LOGS_MAX = 3
INFO_LOG_BYTES = 4 << 20

# Between two looks at whether a device that refused a write takes writes again.
REOPEN_BEAT_S = 0.5

# How RocksDB words its refusal of a write that would have to wait.
_STALLED = "incomplete"
# The one error of a device after which it goes on by itself.
_NO_SPACE = "No space left"

# Written, and deleted at once, to see whether the device takes writes. RocksDB leaves it alone.
_PROBE_FILE = "keyplane-probe"

_Done = Callable[[EngineError | None], None]


class RocksEngine:
    """One RocksDB database.

    A commit that must be synced, or that RocksDB would make wait, goes to the one committer thread;
    any other is carried out at once, which is several times cheaper than handing it over.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        post: Callable[[Callable[[], None]], object],
        row_cache_bytes: int = ROW_CACHE_BYTES,
    ) -> None:
        """post: runs a callback on the owner's thread, and may be called from any other
        (`loop.call_soon_threadsafe`).

        Raises EngineError if the directory cannot be opened, or another process has it open.
        """
        self._clock = clock
        self._post = post
        self._committer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="committer")
        # Commits that the thread has not finished. While there are any, others must queue behind.
        self._handed_over = 0
        self._at_once = WriteOptions()
        self._at_once.no_slowdown = True
        self._patient = WriteOptions()
        self._synced = WriteOptions()
        self._synced.sync = True
        self._rows = RowCache(row_cache_bytes, ITEM_TAG)
        self._directory = directory
        self._closed = False
        # Why no commit is taken until the database has been opened anew.
        self._broken: EngineError | None = None
        # What there was before under the keys of batches that failed. Such a batch may be in the
        # log and would come back when that is read.
        self._before: dict[bytes, bytes | None] = {}
        # An open iterator keeps the database locked.
        self._snapshots: weakref.WeakSet[RocksSnapshot] = weakref.WeakSet()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._db = _open(directory)
        except Exception as error:
            hint = ""
            if "lock hold by" in str(error) or "While lock file" in str(error):
                hint = ": another process has this data directory open; stop it first"
            raise EngineError(f"cannot open {directory}: {error}{hint}") from error

    def get(self, key: bytes) -> bytes | None:
        value = self._rows.get(key)
        if value is None:
            value = self._read(key)
            if value is not None:
                self._rows.put(key, value)
        return value

    def _read(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise EngineError(f"read failed: {error}") from error
        return value

    def scan(
        self, start: bytes, end: bytes, backward: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return _scan(self._db, start, end, backward)

    def commit(self, batch: Batch, sync: bool, on_done: _Done) -> None:
        if self._broken is not None:
            broken = self._broken
            self._clock.call_soon(lambda: on_done(broken))
            return
        if sync or self._handed_over:
            self._hand_over(batch, self._synced if sync else self._patient, on_done)
            return
        error = self._write(_pack(batch), self._at_once)
        if error is not None and _STALLED in str(error):
            self._hand_over(batch, self._patient, on_done)
            return
        self._look_at(error, batch)
        self._clock.call_soon(lambda: on_done(error))

    def snapshot(self) -> RocksSnapshot:
        try:
            snapshot = RocksSnapshot(self._db.iter())
        except Exception as error:
            raise EngineError(f"no snapshot can be taken: {error}") from error
        self._snapshots.add(snapshot)
        return snapshot

    def close(self) -> None:
        """Finishes the commits in hand, then closes the files."""
        self._closed = True
        self._committer.shutdown(wait=True)
        self._close_files()

    def _close_files(self) -> None:
        # After a write error RocksDB complains once more. Whatever was acknowledged is in its log.
        with contextlib.suppress(Exception):
            self._db.close()

    def _hand_over(self, batch: Batch, options: WriteOptions, on_done: _Done) -> None:
        self._handed_over += 1

        def finish(error: EngineError | None) -> None:
            self._handed_over -= 1
            self._look_at(error, batch)
            on_done(error)

        def work() -> None:
            error = self._write(_pack(batch), options)
            self._post(lambda: finish(error))

        self._committer.submit(work)

    # --- After a write error

    def _look_at(self, error: EngineError | None, batch: Batch) -> None:
        """Of a commit that has ended: whether the database can go on as it is."""
        if batch.delete_ranges:
            self._rows.clear()
        if error is None:
            self._rows.replace_all(batch.writes)
        else:
            # It is open what readers will find.
            self._rows.drop_all(batch.writes)
        if error is None or _NO_SPACE in str(error):
            return
        for key in batch.writes.keys() - self._before.keys():
            # What failed is not seen by readers; a read that fails has nothing to be kept.
            with contextlib.suppress(EngineError):
                self._before[key] = self.get(key)
        if self._broken is None:
            self._clock.call_later(REOPEN_BEAT_S, self._reopen)
        self._broken = error

    def _reopen(self) -> None:
        """Opens the database anew, in one go with undoing what failed: no reader sees between.

        Takes as long as reading the log does, about 3 ms a megabyte. If it cannot be opened after
        all, reads fail too until it can.
        """
        if self._closed:
            return
        if self._handed_over or not self._takes_writes():
            self._clock.call_later(REOPEN_BEAT_S, self._reopen)
            return
        for snapshot in list(self._snapshots):
            snapshot.close()
        self._close_files()
        self._rows.clear()
        try:
            self._db = _open(self._directory)
            self._db.write(_pack(Batch(dict(self._before))), self._synced)
        except Exception as error:  # noqa: BLE001
            self._close_files()
            self._broken = EngineError(f"the database cannot be opened again yet: {error}")
            self._clock.call_later(REOPEN_BEAT_S, self._reopen)
            return
        self._before.clear()
        self._broken = None

    def _takes_writes(self) -> bool:
        """Whether there is room for what RocksDB writes when it opens, buffers as a file."""
        path = self._directory / _PROBE_FILE
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, FLUSHED_BUFFERS * WRITE_BUFFER_BYTES)
                os.fsync(file.fileno())
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        return True

    def _write(self, packed: WriteBatch, options: WriteOptions) -> EngineError | None:
        try:
            self._db.write(packed, options)
        except Exception as error:  # noqa: BLE001
            return EngineError(str(error))
        return None


class RocksSnapshot:
    """A frozen view. It keeps old versions on disk for as long as it is open.

    It is one iterator, which RocksDB defines to see the database as it was when it was made. (The
    binding's own snapshots freeze single reads only: their iterators see later writes.)
    """

    def __init__(self, iterator: RdictIter) -> None:
        self._iterator: RdictIter | None = iterator
        # The scan that moved the iterator last; another one must seek its own place again.
        self._mover: object = None

    def get(self, key: bytes) -> bytes | None:
        for _, value in self.scan(key, key + b"\x00"):
            return value
        return None

    def scan(
        self, start: bytes, end: bytes, backward: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        scan = object()
        try:
            if backward:
                yield from self._backward(scan, start, end)
            else:
                yield from self._forward(scan, start, end)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"scan failed: {error}") from error

    def close(self) -> None:
        self._iterator = None

    def _forward(self, scan: object, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        while True:
            iterator = self._open()
            if self._mover is scan:
                iterator.next()
            else:
                iterator.seek(start)
                self._mover = scan
            if not iterator.valid():
                iterator.status()
                return
            key = iterator.key()
            if key >= end:
                return
            value = iterator.value()
            # A scan that nobody goes on with must not keep the database open.
            del iterator
            yield key, value
            start = key + b"\x00"

    def _backward(self, scan: object, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        while True:
            iterator = self._open()
            if self._mover is scan:
                iterator.prev()
            else:
                iterator.seek_for_prev(end)
                self._mover = scan
                if iterator.valid() and iterator.key() == end:
                    iterator.prev()
            if not iterator.valid():
                iterator.status()
                return
            key = iterator.key()
            if key < start:
                return
            value = iterator.value()
            del iterator
            yield key, value
            end = key

    def _open(self) -> RdictIter:
        if self._iterator is None:
            raise EngineError("the snapshot is closed")
        return self._iterator


def _scan(db: Rdict, start: bytes, end: bytes, backward: bool) -> Iterator[tuple[bytes, bytes]]:
    """The lower bound is kept here: the binding takes a lower bound for an upper one."""
    if start >= end:
        return
    bounds = ReadOptions()
    bounds.set_iterate_upper_bound(end)
    try:
        if backward:
            for key, value in _items(db, end, bounds, backward=True):
                if key < start:
                    return
                yield key, value
        else:
            yield from _items(db, start, bounds, backward=False)
    except Exception as error:
        raise EngineError(f"scan failed: {error}") from error


def _items(
    db: Rdict, position: bytes, bounds: ReadOptions, backward: bool
) -> Iterator[tuple[bytes, bytes]]:
    """Raw mode has bytes only, which the binding's types cannot say."""
    entries = db.items(backwards=backward, from_key=position, read_opt=bounds)
    return cast(Iterator[tuple[bytes, bytes]], entries)


def _pack(batch: Batch) -> WriteBatch:
    packed = WriteBatch(raw_mode=True)
    for start, end in batch.delete_ranges:
        packed.delete_range(start, end)
    for key, value in batch.writes.items():
        if value is None:
            packed.delete(key)
        else:
            packed.put(key, value)
    return packed


def _open(directory: Path) -> Rdict:
    db = Rdict(str(directory), _options())
    niceness = os.getpriority(os.PRIO_PROCESS, 0) + BACKGROUND_NICENESS
    # Its threads bear its name. They are those of all databases of the process.
    for thread in Path("/proc/self/task").iterdir():
        # Other threads come and go.
        with contextlib.suppress(OSError):
            if (thread / "comm").read_text().startswith("rocksdb:"):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)
    return db


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    table.set_bloom_filter(10, block_based=False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_min_write_buffer_number_to_merge(FLUSHED_BUFFERS)
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_keep_log_file_num(INFO_LOGS_MAX)
    options.set_max_log_file_size(INFO_LOG_BYTES)
    return options
