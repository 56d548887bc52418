"""Metrics: registries that don't mix, in Prometheus's words."""

from __future__ import annotations

from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from sleap_rtc.observe.metrics import new_registry, render


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
