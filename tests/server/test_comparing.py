"""Reading stored objects to learn what their content is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.errors import Cancelled, NotFound, SourceChanged, StorageUnreachable
from sleap_rtc.server import comparing
from sleap_rtc.server.comparing import digest_in_folder, digest_over_link
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.store_endpoint import StoreEndpoint

DATA = os.urandom(100_000)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreEndpoint]:
    monkeypatch.setattr(comparing, "_RUN", 30_000)
    monkeypatch.setattr(comparing, "_PATIENCE", Patience(attempts=2, base=0.001, cap=0.01))
    with StoreEndpoint(tmp_path / "store") as running:
        for key, data in (("full", DATA), ("empty", b"")):
            assert running.store.create(key, data)
        yield running


def test_both_ways_say_the_same(endpoint: StoreEndpoint) -> None:
    store, connections = endpoint.store, Connections()
    for key, data in (("full", DATA), ("empty", b"")):
        found = store.head(key)
        assert found is not None
        digest = blake3(data).hexdigest()
        assert digest_in_folder(store, key) == digest
        assert digest_in_folder(store, key, etag=found.etag) == digest
        assert digest_over_link(store.download_request, connections, found) == digest
    assert len(endpoint.requests) == 4
    connections.close()


def test_a_cut_answer_is_asked_for_again(endpoint: StoreEndpoint) -> None:
    found = endpoint.store.head("full")
    assert found is not None
    endpoint.fault = lambda _method, number: "500" if number == 2 else None
    digest = digest_over_link(endpoint.store.download_request, Connections(), found)
    assert digest == blake3(DATA).hexdigest()
    endpoint.fault = lambda _method, _number: "500"
    with pytest.raises(StorageUnreachable):
        digest_over_link(endpoint.store.download_request, Connections(), found)


def test_another_version_or_none(endpoint: StoreEndpoint) -> None:
    store, found = endpoint.store, endpoint.store.head("full")
    assert found is not None
    other = replace(found, etag="another")
    with pytest.raises(SourceChanged):
        digest_in_folder(store, "full", etag="another")
    with pytest.raises(SourceChanged):
        digest_over_link(store.download_request, Connections(), other)
    store.delete("full")
    with pytest.raises(FileNotFoundError):
        digest_in_folder(store, "full")
    with pytest.raises(NotFound):
        digest_over_link(store.download_request, Connections(), found)


def test_it_ends_between_two_pieces(endpoint: StoreEndpoint) -> None:
    store, found = endpoint.store, endpoint.store.head("full")
    assert found is not None

    def stop() -> None:
        raise Cancelled(what="It")

    with pytest.raises(Cancelled):
        digest_in_folder(store, "full", going_on=stop)
    with pytest.raises(Cancelled):
        digest_over_link(store.download_request, Connections(), found, stop)
    assert endpoint.requests == []
