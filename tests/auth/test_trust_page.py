"""The examples on docs/trust.md are what the code reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sleap_rtc.auth import certificates, transcript
from sleap_rtc.auth.certificates import (
    Grant,
    InviteCertificate,
    JoinCertificate,
    OwnerCertificate,
)
from sleap_rtc.auth.membership import MembershipList
from sleap_rtc.domain.values import Document, decode
from sleap_rtc.protocol.handshake import HANDSHAKE_SECONDS
from sleap_rtc.protocol.signaling import SIGN_IN_CONTEXT
from sleap_rtc.protocol.signed import MAX_CHAIN, Signed

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text("utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
KINDS: list[type[Document]] = [
    Signed,
    OwnerCertificate,
    InviteCertificate,
    JoinCertificate,
    Grant,
    MembershipList,
]


@pytest.mark.parametrize(("kind", "text"), list(zip(KINDS, EXAMPLES, strict=True)))
def test_examples_are_read_without_a_rest(kind: type[Document], text: str) -> None:
    found = decode(kind, text.encode(), what="the example")
    assert found.unknown == {}


def test_figures_are_the_codes() -> None:
    assert certificates.LIFETIME.days == 30
    assert certificates.INVITE_LIFETIME.total_seconds() == 24 * 3600
    assert certificates.SKEW.total_seconds() == 5 * 60
    assert f"it has {HANDSHAKE_SECONDS} seconds" in PAGE
    assert f"1 to {MAX_CHAIN} links" in PAGE


def test_every_context_is_named() -> None:
    kinds = (OwnerCertificate, InviteCertificate, JoinCertificate, Grant, MembershipList)
    for context in [*(kind.CONTEXT for kind in kinds), *transcript.CONTEXTS.values()]:
        assert f"`{context}`" in PAGE
    assert f"`{SIGN_IN_CONTEXT}`" in PAGE
