"""What a server counts."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from sleap_rtc.observe.metrics import new_registry


class ServerMetrics:
    """A server's instruments, in a registry of their own."""

    def __init__(self) -> None:
        registry = new_registry()
        self.registry: CollectorRegistry = registry
        self.connections = Gauge(
            "sleap_rtc_connections", "Signaling connections that are open.", registry=registry
        )
        self.signed_in = Gauge(
            "sleap_rtc_signed_in", "Signaling connections that are signed in.", registry=registry
        )
        self.sign_ins = Counter(
            "sleap_rtc_sign_ins", "Sign-ins by outcome.", ["outcome"], registry=registry
        )
        self.requests = Counter(
            "sleap_rtc_requests",
            "Requests by kind, and by the code of the error or ok.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.relayed_bytes = Counter(
            "sleap_rtc_relayed_bytes", "Bytes passed on between devices.", registry=registry
        )
        self.stored_bytes = Counter(
            "sleap_rtc_storage_bytes",
            "Bytes of parts and objects that this server took in and gave out itself.",
            ["direction"],
            registry=registry,
        )
        self.dropped = Counter(
            "sleap_rtc_dropped_connections",
            "Connections that were ended because the device didn't read.",
            registry=registry,
        )
        self.stun = Counter(
            "sleap_rtc_stun_requests", "STUN datagrams by outcome.", ["outcome"], registry=registry
        )
        self._rooms = Gauge(
            "sleap_rtc_rooms_online", "Rooms with somebody online.", registry=registry
        )
        self._presences = Gauge(
            "sleap_rtc_presences", "Devices online, counted in each room.", registry=registry
        )

    def watch_rooms(self, counts: Callable[[], tuple[int, int]]) -> None:
        """Take the figures of presence from here whenever somebody asks.

        Args:
            counts: Gives rooms with somebody online, and presences in all of them.
        """
        self._rooms.set_function(lambda: counts()[0])
        self._presences.set_function(lambda: counts()[1])
