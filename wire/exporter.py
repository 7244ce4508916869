"""Metrics in the Prometheus text format, over HTTP on a port of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from wire.addresses import check_listen, format_address, parse_address
from wire.metrics import Counter, Gauge, Histogram, Metrics

PREFIX = "keyplane_"

# For the event loop to get to a scrape. One that takes longer fails, and says so by failing.
SCRAPE_TIMEOUT_S = 5.0


def families(metrics: Metrics) -> Iterator[Metric]:
    """What Prometheus shall see of each metric: named with PREFIX, counters with `_total`."""
    for metric in metrics:
        name = PREFIX + metric.name
        match metric:
            case Counter():
                labels = [metric.label] if metric.label else []
                counter = CounterMetricFamily(name, metric.help, labels=labels)
                for label, value in metric.values.items():
                    counter.add_metric([label] if metric.label else [], value)
                if not metric.label and not metric.values:
                    counter.add_metric([], 0)
                yield counter
            case Gauge():
                yield GaugeMetricFamily(name, metric.help, value=metric.read())
            case Histogram():
                bounds = (*map(str, metric.buckets), "+Inf")
                cumulative = list(zip(bounds, accumulate(metric.counts), strict=True))
                histogram = HistogramMetricFamily(name, metric.help)
                histogram.add_metric([], cumulative, metric.sum)
                yield histogram


class _LoopCollector(Collector):
    """Reads metrics on the thread that writes them, whichever thread asks."""

    def __init__(self, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._metrics = metrics
        self._loop = loop

    def collect(self) -> list[Metric]:
        async def read() -> list[Metric]:
            return list(families(self._metrics))

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(SCRAPE_TIMEOUT_S)

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: metrics appear while a process runs."""
        return []


class Exporter:
    """GET /metrics of one process.

    Raises OSError with a message for people if it cannot listen, ValueError if `listen` is no
    address.
    """

    def __init__(self, metrics: Metrics, loop: asyncio.AbstractEventLoop, listen: str) -> None:
        host, port = parse_address(listen)
        check_listen(listen)
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(_LoopCollector(metrics, loop))
        self._server, self._thread = start_http_server(port, host, registry)
        self.address = format_address(host, self._server.server_port)

    def close(self) -> None:
        """Blocks for up to half a second, until the HTTP thread has noticed."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
