"""Metrics for Prometheus: a registry of one's own, and its text.

A registry belongs to whoever makes it, not to the process, so that two servers
in one process (as in tests) don't count together. Needs the extra ``server``.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0


def new_registry() -> CollectorRegistry:
    """A registry that has what every process shows: memory, CPU, files, Python's collector."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> tuple[str, bytes]:
    """The content type and the text of everything in a registry."""
    return CONTENT_TYPE_PLAIN_1_0_0, generate_latest(registry)
