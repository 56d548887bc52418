"""The little XML that stores speak, and what is refused of it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import DataError
from sleap_rtc.storage import xml


def test_names_count_without_their_namespace() -> None:
    root = xml.parse(b'<R xmlns="http://s3/"><A>1</A><A>2</A><B/></R>', "it")
    assert [node.text for node in xml.nodes(root, "A")] == ["1", "2"]
    assert (xml.text(root, "A"), xml.text(root, "B")) == ("1", "")
    assert xml.text(root, "C", default="none") == "none"
    with pytest.raises(DataError, match="no C"):
        xml.text(root, "C")


@pytest.mark.parametrize(
    "data",
    [b"", b"no", b"<a><b></a>", b"<!DOCTYPE a><a/>", b"<a><!ENTITY x 'y'></a>", b"<\0a\0/\0>\0"],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        xml.parse(data, "it")


def test_a_body_that_tells_of_an_error() -> None:
    assert xml.error(b"<?xml version='1.0'?>\n<Error><Code>SlowDown</Code></Error>") == "SlowDown"
    assert xml.error(b'<Error xmlns="x"><Message/></Error>') == "an error without a code"
    assert xml.error(b"<Error><Code>") == "an answer that can't be read"
    assert xml.error(b"<List><Error>of a key</Error></List>") is None
    assert xml.error(b"") is None
    assert xml.error(b"bytes with <Error> in them") is None


@given(st.binary(max_size=200))
def test_no_body_breaks_it(data: bytes) -> None:
    found = xml.error(data)
    assert found is None or len(found) <= 80
    with contextlib.suppress(DataError):
        xml.parse(data, "it")
