"""Contents in one piece that come in at a folder: kept whole and compared, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from unittest import mock

import pytest
from blake3 import blake3

from sleap_rtc.errors import AlreadyExists, Damaged, DataError, OutOfSpace
from sleap_rtc.files import durable
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import Content
from sleap_rtc.storage.tickets import Ticket

DATA = b"some content" * 1000


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store", base_url="")


def ticket_of(store: FolderStore, data: bytes = DATA, key: str = "a/k", **more: str) -> Ticket:
    content = Content(key=key, size=len(data), sha256=hashlib.sha256(data).digest())
    request = store.content_request(content, **more)  # type: ignore[arg-type]
    return store.ticket(request.url.rpartition("/")[2], method="PUT")


def arriving(store: FolderStore) -> list[Path]:
    return list((Path(store.name) / "arriving").iterdir())


def test_it_is_there_when_it_was_compared_and_not_before(store: FolderStore) -> None:
    with store.receive(ticket_of(store, blake3=blake3(DATA).hexdigest())) as writer:
        writer.write(DATA[:5])
        writer.write(DATA[5:])
        assert store.head("a/k") is None
        assert len(arriving(store)) == 1
        part = writer.commit()
    assert (part.size, part.sha256) == (len(DATA), hashlib.sha256(DATA).digest())
    assert store.read("a/k", limit=len(DATA)) == DATA
    assert arriving(store) == []


@pytest.mark.parametrize("sent", [b"", DATA[:-1], b"X" + DATA[1:]])
def test_what_isnt_it_leaves_nothing(store: FolderStore, sent: bytes) -> None:
    with store.receive(ticket_of(store)) as writer:
        writer.write(sent)
        with pytest.raises(Damaged):
            writer.commit()
    with store.receive(ticket_of(store, blake3="0" * 64)) as writer:
        writer.write(DATA)
        with pytest.raises(Damaged):
            writer.commit()
    with store.receive(ticket_of(store)) as writer, pytest.raises(DataError):
        writer.write(DATA + b"X")
    assert store.head("a/k") is None
    assert arriving(store) == []


def test_who_is_second_is_told_so_before_and_after(store: FolderStore) -> None:
    first, second = (store.receive(ticket_of(store)) for _ in range(2))
    with first, second:
        first.write(DATA)
        second.write(DATA)
        first.commit()
        with pytest.raises(AlreadyExists, match="a/k"):
            second.commit()
    with pytest.raises(AlreadyExists, match="a/k"):
        store.receive(ticket_of(store))
    assert arriving(store) == []


def test_a_full_disk(store: FolderStore) -> None:
    ticket = ticket_of(store)
    with store.receive(ticket) as writer:
        writer.write(DATA)
        with (
            mock.patch.object(durable, "sync_file", side_effect=OSError(28, "full")),
            pytest.raises(OutOfSpace),
        ):
            writer.commit()
    assert store.head("a/k") is None
    with store.receive(ticket) as writer:
        writer.write(DATA)
        writer.commit()


def test_what_a_crash_left_is_swept(store: FolderStore) -> None:
    (Path(store.name) / "arriving" / ".tmp-0").write_bytes(b"half")
    store.sweep()
    assert len(arriving(store)) == 1
    store.sweep(seconds=-1)
    assert arriving(store) == []
