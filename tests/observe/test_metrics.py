"""Metrics: registries that don't mix, in Prometheus's words."""

from __future__ import annotations

from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from sleap_rtc.observe.latency import Latencies
from sleap_rtc.observe.metrics import LatencyCollector, new_registry, render


def test_two_registries_count_apart() -> None:
    first, second = new_registry(), new_registry()
    Counter("things", "Things.", registry=first).inc(3)
    Counter("things", "Things.", registry=second)
    assert first.get_sample_value("things_total") == 3
    assert second.get_sample_value("things_total") == 0


def test_the_text_is_what_prometheus_reads() -> None:
    content_type, text = render(new_registry())
    assert content_type.startswith("text/plain")
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    assert "python_info" in names


def test_latencies_are_a_histogram_by_operation() -> None:
    latencies = Latencies()
    for seconds in (0.0004, 0.004, 90.0):
        latencies.add("get", seconds, failed=seconds > 1)
    registry = new_registry()
    registry.register(LatencyCollector("library", latencies))
    name = "sleap_rtc_library_operation"
    get = {"operation": "get"}

    def value(of: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"{name}_{of}", get | labels)

    assert value("seconds_count") == 3
    assert round(value("seconds_sum") or 0, 4) == 90.0044
    assert value("seconds_bucket", le="0.0005") == 1
    assert value("seconds_bucket", le="0.005") == 2
    assert value("seconds_bucket", le="60.0") == 2
    assert value("seconds_bucket", le="+Inf") == 3
    assert value("failures_total") == 1
    latencies.add("list", 0.001)
    assert registry.get_sample_value(f"{name}_seconds_count", {"operation": "list"}) == 1
    render(registry)
