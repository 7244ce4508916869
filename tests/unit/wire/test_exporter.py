"""GET /metrics: what Prometheus reads, from the thread that writes it."""

from __future__ import annotations

import asyncio
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wire.exporter import Exporter
from wire.metrics import Metrics


def scrape(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name and label values, as one scrape over HTTP sees them."""

    async def run() -> str:
        loop = asyncio.get_running_loop()
        exporter = Exporter(metrics, loop, "127.0.0.1:0")
        try:
            return await loop.run_in_executor(None, read, f"http://{exporter.address}/metrics")
        finally:
            exporter.close()

    def read(url: str) -> str:
        with urllib.request.urlopen(url, timeout=10) as response:
            text: str = response.read().decode()
            return text

    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(asyncio.run(run())):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


def test_counters_gauges_and_histograms_arrive() -> None:
    metrics = Metrics()
    metrics.counter("beats", "Beats.")
    errors = metrics.counter("errors", "Errors.", "reason")
    errors.inc("STALE_ROUTE", 3)
    metrics.gauge("depth", "Depth.", lambda: 7.5)
    latency = metrics.histogram("latency_s", "Latency.", (0.1, 1.0))
    for value in (0.05, 0.5, 3.0):
        latency.observe(value)
    samples = scrape(metrics)
    assert samples["keyplane_beats_total"] == {(): 0}
    assert samples["keyplane_errors_total"] == {("STALE_ROUTE",): 3}
    assert samples["keyplane_depth"] == {(): 7.5}
    assert samples["keyplane_latency_s_bucket"] == {("0.1",): 1, ("1.0",): 2, ("+Inf",): 3}
    assert samples["keyplane_latency_s_count"] == {(): 3}
    assert samples["keyplane_latency_s_sum"] == {(): pytest.approx(3.55)}


def test_the_process_tells_of_itself() -> None:
    samples = scrape(Metrics())
    assert samples["process_resident_memory_bytes"][()] > 0
    assert samples["process_open_fds"][()] > 0


def test_gauges_are_read_on_the_thread_that_owns_them() -> None:
    metrics = Metrics()
    metrics.gauge("thread", "Thread.", lambda: threading.get_ident())
    assert scrape(metrics)["keyplane_thread"] == {(): threading.get_ident()}


def test_a_taken_port_is_refused() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        first = Exporter(Metrics(), loop, "127.0.0.1:0")
        try:
            with pytest.raises(OSError, match="Address already in use"):
                Exporter(Metrics(), loop, first.address)
        finally:
            first.close()

    asyncio.run(run())
