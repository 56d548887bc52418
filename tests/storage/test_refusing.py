"""Why a store says no: in XML, in a server's words, or not at all."""

from __future__ import annotations

import pytest

from sleap_rtc.errors import Busy, OutOfSpace, StorageRefused
from sleap_rtc.server.responses import failed
from sleap_rtc.storage.refusing import code_of, in_its_words


def test_the_code_of_a_refusal() -> None:
    assert code_of(403, b"<Error><Code>AccessDenied</Code></Error>") == "AccessDenied"
    assert code_of(403, b'{"error": {}}') == "HTTP 403"
    assert code_of(500, b"") == "HTTP 500"


def test_a_server_s_words_are_kept() -> None:
    said = StorageRefused(store="of the server", what="take k", why="it is full", hint="Ask.")
    here = StorageRefused(store="there", what="take it", why="HTTP 403")
    found = in_its_words(here, failed(said).body)
    assert (type(found), found.message, found.hint_text) == (StorageRefused, said.message, "Ask.")
    # What it means is decided here, whatever the other side calls it.
    assert type(in_its_words(here, failed(Busy(what="k", by="")).body)) is StorageRefused


@pytest.mark.parametrize("body", [b"", b"<Error/>", b"{", b"{}", b'{"error": 1}', b"{\xff"])
def test_without_any_it_stays_as_it_is(body: bytes) -> None:
    here = OutOfSpace(path="the store", free="no room", need="more")
    assert in_its_words(here, body) is here
