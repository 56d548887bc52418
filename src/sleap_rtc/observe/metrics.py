"""Metrics for Prometheus: a registry of one's own, and its text.

A registry belongs to whoever makes it, not to the process, so that two servers
in one process (as in tests) don't count together. Needs the extra ``server``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector

from sleap_rtc.observe.latency import BOUNDS_S, Latencies


def new_registry() -> CollectorRegistry:
    """A registry that has what every process shows: memory, CPU, files, Python's collector."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class LatencyCollector(Collector):
    """Shows the durations of a family of operations as one histogram, by operation.

    Register it: ``registry.register(LatencyCollector("library", library.latencies))``.

    Args:
        family: What is timed; part of the names ``sleap_rtc_<family>_operation_seconds`` and
            ``…_failures``.
        latencies: What was counted.
    """

    def __init__(self, family: str, latencies: Latencies) -> None:
        self._name = f"sleap_rtc_{family}_operation"
        self._family = family
        self._latencies = latencies

    def collect(self) -> Iterator[Metric]:
        """The histogram, and a count of those that failed."""
        seconds = HistogramMetricFamily(
            f"{self._name}_seconds",
            f"Durations of {self._family} operations.",
            labels=["operation"],
        )
        failures = CounterMetricFamily(
            f"{self._name}_failures",
            f"Operations of the {self._family} that raised an error.",
            labels=["operation"],
        )
        for operation, found in self._latencies.all().items():
            bounds = (*(str(bound) for bound in BOUNDS_S), "+Inf")
            counts = accumulate(found.buckets)
            seconds.add_metric(
                [operation], list(zip(bounds, counts, strict=True)), sum_value=found.total_s
            )
            failures.add_metric([operation], found.failed)
        yield seconds
        yield failures


def render(registry: CollectorRegistry) -> tuple[str, bytes]:
    """The content type and the text of everything in a registry."""
    return CONTENT_TYPE_PLAIN_1_0_0, generate_latest(registry)
