"""Arranging a connection: messages come back, and no description hides a second certificate."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol import peering as p

RAW = bytes(range(32))
HEX = ":".join(f"{byte:02X}" for byte in RAW)
OTHER = ":".join(["FF"] * 32)
LINE = f"a=fingerprint:sha-256 {HEX}\r\n"
SDP = (
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n"
    f"a=ice-pwd:abcdefghijklmnopqrstuv\r\n{LINE}a=setup:actpass\r\na=mid:0\r\na=sctp-port:5000\r\n"
)

ids = st.uuids().map(str)
sdps = st.text(min_size=1, max_size=500)
messages = st.one_of(
    st.builds(
        p.Offer,
        attempt=ids,
        session=ids,
        purpose=st.sampled_from(["control", "blocks"]),
        sdp=sdps,
        restart=st.booleans(),
    ),
    st.builds(p.Answer, attempt=ids, sdp=sdps),
    st.builds(
        p.Candidate,
        attempt=ids,
        candidate=st.text(max_size=1024),
        mid=st.none() | st.text(max_size=64),
        line=st.none() | st.integers(0, 64),
    ),
    st.builds(p.Decline, attempt=ids, code=st.text(max_size=64), message=st.text(max_size=1_000)),
)


@given(messages)
def test_messages_come_back(message: p.Peering) -> None:
    assert p.peering.decode(p.peering.encode(message), peer="a peer") == message


@pytest.mark.parametrize(
    "attempt", ["", "a" * 35, "a" * 37, "A" * 36, "a" * 36 + "\n", "\n" + "a" * 36]
)
def test_an_attempt_s_id_has_one_form(attempt: str) -> None:
    raw = p.peering.encode(p.Answer(attempt=attempt, sdp="x"))
    with pytest.raises(ProtocolError, match="attempt"):
        p.peering.decode(raw, peer="a peer")


@pytest.mark.parametrize(
    "sdp",
    [
        SDP,
        SDP.replace("\r\n", "\n"),
        SDP.replace(LINE, LINE * 3),
        SDP.replace(HEX, HEX.lower()),
        SDP.replace("sha-256", "SHA-256"),
        LINE + SDP,
        LINE.strip(),
    ],
)
def test_the_one_fingerprint_is_found(sdp: str) -> None:
    assert p.fingerprint_of(sdp, peer="a peer") == RAW


@pytest.mark.parametrize(
    "second",
    [
        f"a=fingerprint:sha-256 {OTHER}\r\n",
        f"a=fingerprint:sha-1 {OTHER[:59]}\r\n",
        f"a=fingerprint:sha-256  {OTHER}\r\n",
        f"a=fingerprint:sha-256\t{OTHER}\r\n",
        f"a=fingerprint:sha-256 {OTHER} \r\n",
        f"a=fingerprint:sha-256 {OTHER} more\r\n",
        f"a=fingerprint: sha-256 {OTHER}\r\n",
        f"a= fingerprint:sha-256 {OTHER}\r\n",
        f" a=fingerprint:sha-256 {OTHER}\r\n",
        f"A=FINGERPRINT:sha-256 {OTHER[:-3]}\r\n",
        f"a=x\ra=fingerprint:sha-256 {OTHER}\r\n",
        f"a=x\x0ba=fingerprint:sha-256 {OTHER}\r\n",
        f"a=x\u2028a=fingerprint:sha-256 {OTHER}\r\n",
        f"a=fingerprint:sha-256 {OTHER}\ra=x\r\n",
        f"a=fingerprint:sha-256 {OTHER.replace(':', '')}\r\n",
        f"a=fingerprint:sha-256 {OTHER.replace('F', 'Ｆ')}\r\n",  # noqa: RUF001
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_second_one_in_any_disguise_is_refused(second: str, first: bool) -> None:
    sdp = SDP.replace(LINE, second + LINE if first else LINE + second)
    with pytest.raises(ProtocolError, match="a description with"):
        p.fingerprint_of(sdp, peer="a peer")


@pytest.mark.parametrize("line", ["", "a=fingerprint:sha-256 \r\n", f"a=fingerprint:md5 {HEX}\r\n"])
def test_none_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError, match="a description with"):
        p.fingerprint_of(SDP.replace(LINE, line), peer="a peer")


@given(
    st.lists(st.sampled_from([LINE, "a=", "fingerprint", ":", "sha-256 ", HEX, OTHER, "\n", "x"]))
)
@example([LINE, "fingerprint"])
def test_what_is_found_is_all_that_is_said(parts: list[str]) -> None:
    sdp = "".join(parts)
    with contextlib.suppress(ProtocolError):
        found = p.fingerprint_of(sdp, peer="a peer")
        lines = [line for line in sdp.splitlines() if "fingerprint" in line]
        assert {line.partition(" ")[2].replace(":", "") for line in lines} == {found.hex().upper()}
