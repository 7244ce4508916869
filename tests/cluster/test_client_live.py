"""The client SDK against real routers: its whole surface, and routers that die or hang under it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from keyplane import (
    AdminClient,
    AlreadyExists,
    AsyncAdminClient,
    AsyncClient,
    Client,
    ClientConfig,
    ConditionFailed,
    Delete,
    InvalidRequest,
    KeyplaneError,
    NotFound,
    Put,
    Reason,
    Spent,
    TableNotFound,
    Unavailable,
)
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.metadata.v1 import metadata_pb2 as metadata

pytestmark = pytest.mark.cluster

THREADS = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two routers and one storage node, with the table `music` of four partitions."""
    running = Cluster(home=tmp_path_factory.mktemp("client"))
    try:
        running.up(ClusterConfig(memds=1, routers=2, storage=1))
        with AdminClient(running.addresses(Kind.METADATA)[0]) as admin:
            admin.run(create_request("music"))
        yield running
    finally:
        running.down(wipe=True)


def create_request(name: str) -> metadata.CreateTableRequest:
    text = catalog.SCALAR_TYPE_STRING
    return metadata.CreateTableRequest(
        table=name,
        partition_key=catalog.KeyAttribute(name="artist", type=text),
        sort_key=catalog.KeyAttribute(name="song", type=text),
        partitions=4,
    )


def routers(cluster: Cluster) -> list[str]:
    return cluster.addresses(Kind.ROUTER)


def test_items_go_and_come_back_as_python_values(cluster: Cluster) -> None:
    with Client(routers(cluster)) as client:
        key = {"artist": "Miles Davis", "song": "So What"}
        item = key | {"plays": 3, "rating": Decimal("4.5"), "tags": {"jazz"}, "art": b"\x00\xff"}
        assert client.get_item("music", key) is None
        version = client.put_item("music", item, if_exists=False)
        assert client.get_item("music", key, consistent=True) == item
        assert client.get_versioned("music", key, consistent=True) == (item, version)
        with pytest.raises(ConditionFailed):
            client.put_item("music", item, if_exists=False)
        newer = client.put_item("music", item | {"plays": 4}, if_version=version)
        assert newer > version
        with pytest.raises(ConditionFailed):
            client.delete_item("music", key, if_version=version)
        assert client.delete_item("music", key, if_version=newer)
        assert not client.delete_item("music", key)


def test_batches_queries_and_scans(cluster: Cluster) -> None:
    with Client(routers(cluster)) as client:
        songs = [{"artist": "Nina", "song": f"song {n:02}"} for n in range(20)]
        client.batch_write({"music": [Put(song | {"plays": 1}) for song in songs]})
        found = client.batch_get({"music": [*songs, {"artist": "Nina", "song": "none"}]})
        assert len(found["music"]) == 20
        names = [item["song"] for item in client.query("music", "Nina", consistent=True)]
        assert names == [song["song"] for song in songs]
        backward = client.query("music", "Nina", gte="song 03", lt="song 06", backward=True)
        assert [item["song"] for item in backward] == ["song 05", "song 04", "song 03"]
        assert len(list(client.query("music", "Nina", begins_with="song 1", limit=7))) == 7
        (page,) = list(client.query_pages("music", "Nina", limit=5))
        (rest,) = list(client.query_pages("music", "Nina", start_after=page.next_key))
        assert [*page.items, *rest.items] == [song | {"plays": 1} for song in songs]

        by_segment = [
            item["song"]
            for segment in range(3)
            for item in client.scan("music", segment=segment, total_segments=3)
        ]
        assert sorted(by_segment) == names
        assert sum(len(page.items) for page in client.scan_pages("music")) == 20
        client.batch_write({"music": [Delete(song) for song in songs]})
        assert list(client.scan("music", consistent=True)) == []


def test_the_asyncio_client_does_the_same(cluster: Cluster) -> None:
    async def story() -> None:
        async with AsyncClient(routers(cluster)) as client:
            songs = [{"artist": "Ella", "song": f"{n}"} for n in range(9)]
            key = songs[0]
            version = await client.put_item("music", key | {"plays": 1})
            assert await client.get_item("music", key, consistent=True) == key | {"plays": 1}
            found = await client.get_versioned("music", key)
            assert found is not None
            assert found.version == version
            with pytest.raises(ConditionFailed):
                await client.put_item("music", key, if_exists=False)
            await client.batch_write({"music": [Put(song) for song in songs]})
            got = await client.batch_get({"music": songs})
            assert len(got["music"]) == 9
            assert [item async for item in client.query("music", "Ella")] == songs
            pages = [page async for page in client.query_pages("music", "Ella", limit=4)]
            assert [len(page.items) for page in pages] == [4]
            assert len([item async for item in client.scan("music")]) == 9
            assert [len(page.items) async for page in client.scan_pages("music")] == [9]
            assert (await client.explain("music", key)).node.node_id == "storage-1"
            assert (await client.describe_router()).tables[0].table.name == "music"
            for song in songs:
                assert await client.delete_item("music", song)
            with pytest.raises(TableNotFound):
                await client.get_item("nothing", key)
        with pytest.raises(KeyplaneError, match="closed"):
            await client.get_item("music", key)

    asyncio.run(story())


def test_errors_arrive_with_their_reason(cluster: Cluster) -> None:
    with Client(routers(cluster)) as client:
        with pytest.raises(InvalidRequest) as wrong:
            client.put_item("music", {"artist": 5, "song": "x"})
        assert wrong.value.reason is Reason.WRONG_KEY_TYPE
        with pytest.raises(InvalidRequest) as large:
            client.put_item("music", {"artist": "x", "song": "x", "data": b"." * 500_000})
        assert large.value.reason is Reason.ITEM_TOO_LARGE
        with pytest.raises(TableNotFound):
            client.get_item("nothing", {"artist": "x"})
        with pytest.raises(InvalidRequest) as floating:
            client.put_item("music", {"artist": "x", "song": "x", "rating": 0.5})
        assert "Decimal" in str(floating.value)


def test_with_no_router_there_a_call_fails_within_its_time() -> None:
    with Client(["127.0.0.1:1", "127.0.0.1:2"]) as client:
        started_at = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            client.get_item("music", {"artist": "x"}, timeout_s=0.5)
        assert caught.value.reason is Reason.NODE_UNREACHABLE
        assert time.monotonic() - started_at < 5


def test_a_client_that_is_closed_or_forked_says_so(cluster: Cluster) -> None:
    """A forked client would give its writes the tokens of its parent's."""
    client = Client(routers(cluster))
    client._pid = os.getpid() + 1
    with pytest.raises(KeyplaneError, match="fork"):
        client.get_item("music", {"artist": "x", "song": "x"})
    client.close()
    with pytest.raises(KeyplaneError, match="closed"):
        client.get_item("music", {"artist": "x", "song": "x"})


def test_threads_of_one_client_never_share_a_token(cluster: Cluster) -> None:
    """Two writes with one token would be one write, and get one version."""
    versions: Counter[int] = Counter()
    with Client(routers(cluster)) as client:

        def write() -> None:
            mine = [client.put_item("music", {"artist": "all", "song": "one"}) for _ in range(40)]
            versions.update(mine)

        run_threads([write] * THREADS)
        assert len(versions) == THREADS * 40
        assert client.delete_item("music", {"artist": "all", "song": "one"})


def run_threads(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def under_load(cluster: Cluster, fault: Callable[[], None], config: ClientConfig) -> None:
    """Threads write and read back while `fault` is done. Every call must succeed."""
    stop = threading.Event()
    failures: list[str] = []
    done = Counter[str]()
    with Client(routers(cluster), config) as client:

        def work(name: str) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    item = {"artist": name, "song": "s", "number": number}
                    client.put_item("music", item)
                    key = {"artist": name, "song": "s"}
                    assert client.get_item("music", key, consistent=True) == item
                except KeyplaneError as error:
                    failures.append(str(error))
                done[name] += 1

        def wait_for_more() -> None:
            """Until every thread has got round twice: none hangs on what happened before."""
            target = {name: done[name] + 2 for name in names}
            limit = time.monotonic() + 30
            while any(done[name] < target[name] for name in names):
                assert time.monotonic() < limit, f"stuck: {done}"
                time.sleep(0.02)

        names = [f"thread {number}" for number in range(THREADS)]
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        try:
            wait_for_more()
            fault()
            wait_for_more()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert failures == []


def test_killing_a_router_is_invisible_to_callers(cluster: Cluster) -> None:
    """kill -9 with requests in flight: reads and writes go on through the other router."""
    under_load(cluster, lambda: cluster.kill("router-1"), ClientConfig())
    cluster.restart("router-1")


def test_a_router_that_hangs_is_invisible_to_callers(cluster: Cluster) -> None:
    """Its connections stay open and nothing is answered: calls go to the other router in time."""
    config = ClientConfig(attempt_timeout_s=0.5)
    under_load(cluster, lambda: cluster.pause("router-2"), config)
    cluster.resume("router-2")


def test_a_restarted_router_is_used_again(cluster: Cluster) -> None:
    """Its health is asked for by the way, and it gets requests once it is well."""
    with Client(routers(cluster)) as client:
        key = {"artist": "x", "song": "x"}
        client.get_item("music", key)
        cluster.kill("router-1")
        for _ in range(10):
            client.get_item("music", key)
        assert "ejected" in repr(client)
        cluster.restart("router-1")
        limit = time.monotonic() + 30
        while "ejected" in repr(client) or "probing" in repr(client):
            assert time.monotonic() < limit, repr(client)
            client.get_item("music", key)
            time.sleep(0.02)


def test_the_admin_client_waits_for_operations_and_raises_their_errors(cluster: Cluster) -> None:
    address = cluster.addresses(Kind.METADATA)[0]
    with AdminClient(address) as admin:
        operation = admin.run(create_request("films"))
        assert operation.state == metadata.OPERATION_STATE_SUCCEEDED
        with pytest.raises(AlreadyExists):
            admin.run(create_request("films"))
        with pytest.raises(NotFound):
            admin.wait_operation("no such operation")
        listed = admin.call(metadata.ListTablesRequest(), metadata.ListTablesResponse)
        assert {table.name for table in listed.tables} == {"music", "films"}

    async def story() -> None:
        async with AsyncAdminClient(address) as admin:
            await admin.run(metadata.DeleteTableRequest(table="films"))
            with pytest.raises(NotFound):
                await admin.call(
                    metadata.DescribeTableRequest(table="films"), metadata.DescribeTableResponse
                )

    asyncio.run(story())


def test_the_admin_client_waits_through_a_restart_of_the_metadata_store(
    cluster: Cluster, tmp_path: Path
) -> None:
    with AdminClient(cluster.addresses(Kind.METADATA)[0]) as admin:
        started = admin.call(create_request("books"), metadata.CreateTableResponse)
        cluster.kill("metadata")
        restart = threading.Thread(target=lambda: cluster.restart("metadata"))
        restart.start()
        ended = admin.wait_operation(started.operation.operation_id)
        restart.join()
        assert ended.state == metadata.OPERATION_STATE_SUCCEEDED


def test_a_hedged_read_does_not_wait_for_a_router_that_hangs(cluster: Cluster) -> None:
    """Its timeout is shorter than that of an attempt, so a second attempt alone comes too late."""
    key = {"artist": "hedged", "song": "x"}
    with Client(routers(cluster)) as client:
        client.put_item("music", key)
    config = ClientConfig(hedge_after_s=0.05, timeout_s=2.0)
    reads = 6
    cluster.pause("router-2")
    try:
        with Client(routers(cluster), config) as client:
            for _ in range(reads):
                assert client.get_item("music", key) == key

        async def story() -> None:
            async with AsyncClient(routers(cluster), config) as client:
                assert (
                    await asyncio.gather(*(client.get_item("music", key) for _ in range(reads)))
                    == [key] * reads
                )

        asyncio.run(story())
    finally:
        cluster.resume("router-2")


def test_a_read_that_is_always_hedged_reads_and_fails_the_same(cluster: Cluster) -> None:
    key = {"artist": "hedged", "song": "y"}
    config = ClientConfig(hedge_after_s=0.0)
    with Client(routers(cluster), config) as client:
        client.put_item("music", key)
        assert [client.get_item("music", key) for _ in range(20)] == [key] * 20
        with pytest.raises(TableNotFound):
            client.get_item("nothing", key)

    async def story() -> None:
        async with AsyncClient(routers(cluster), config) as client:
            assert await asyncio.gather(*(client.get_item("music", key) for _ in range(20)))
            with pytest.raises(TableNotFound):
                await client.get_item("nothing", key)

    asyncio.run(story())


async def spend_async(cluster: Cluster, spent: Spent) -> None:
    async with AsyncClient(routers(cluster)) as client:
        key = {"artist": "Bill Evans", "song": "Peace Piece"}
        await client.put_item("music", key | {"notes": "x" * 5000}, spent=spent)
        await client.get_item("music", key, consistent=True, spent=spent)
        await client.get_item("music", key, spent=spent)
        await client.batch_get({"music": [key]}, spent=spent)
        async for _ in client.query("music", "Bill Evans", consistent=True, spent=spent):
            pass
        await client.batch_write({"music": [Delete(key)]}, spent=spent)
        await client.delete_item("music", key, spent=spent)


def spend(cluster: Cluster, spent: Spent) -> None:
    with Client(routers(cluster)) as client:
        key = {"artist": "Bill Evans", "song": "Peace Piece"}
        client.put_item("music", key | {"notes": "x" * 5000}, spent=spent)
        client.get_item("music", key, consistent=True, spent=spent)
        client.get_item("music", key, spent=spent)
        client.batch_get({"music": [key]}, spent=spent)
        for _ in client.query("music", "Bill Evans", consistent=True, spent=spent):
            pass
        client.batch_write({"music": [Delete(key)]}, spent=spent)
        client.delete_item("music", key, spent=spent)


def test_both_clients_add_up_what_their_calls_consumed(cluster: Cluster) -> None:
    """An item of 5,038 bytes: two read units, and five write units to put or to delete."""
    sync, async_ = Spent(), Spent()
    spend(cluster, sync)
    asyncio.run(spend_async(cluster, async_))
    assert sync.total == async_.total == (2 + 1 + 1 + 2, 5 + 5 + 1)
    assert list(sync.tables) == ["music"]


def test_a_scan_adds_up_its_pages(cluster: Cluster) -> None:
    """1.5 MB in three pages at least; what they hold together is what is paid for."""
    with Client(routers(cluster)) as client:
        for number in range(5):
            item = {"artist": f"page {number}", "song": "x", "notes": "x" * 300_000}
            client.put_item("music", item)
        spent = Spent()
        pages = list(client.scan_pages("music", consistent=True, spent=spent))
        assert len(pages) > 1
        units = 1_500_000 / 4096
        assert units <= spent.total.read <= units + len(pages) + 2
        for number in range(5):
            client.delete_item("music", {"artist": f"page {number}", "song": "x"})
