"""Which library is taken."""

from __future__ import annotations

import sys

import pytest

from sleap_rtc.errors import UsageError
from sleap_rtc.transports import portable, webrtc
from sleap_rtc.transports.portable import PortableWebRtc
from sleap_rtc.transports.shells import shell
from sleap_rtc.transports.webrtc import WebRtc


@pytest.fixture
def without(monkeypatch):
    """Takes packages away."""

    def take(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        webrtc.library.cache_clear()
        portable.library.cache_clear()

    yield take
    webrtc.library.cache_clear()
    portable.library.cache_clear()


def test_the_fast_one_is_taken_where_it_is():
    assert shell() is shell("auto") is shell("fast") is WebRtc


def test_the_portable_one_is_taken_where_it_is_asked_for_or_alone(without):
    assert shell("portable") is PortableWebRtc
    without("reactor_webrtc")
    assert shell("auto") is PortableWebRtc


def test_what_is_asked_for_and_missing_is_said(without):
    without("reactor_webrtc", "aiortc")
    with pytest.raises(UsageError, match=r"reactor-webrtc can't be loaded") as caught:
        shell("fast")
    assert "sleap-rtc[peer]" in caught.value.hint_text
    with pytest.raises(UsageError, match=r"aiortc can't be loaded") as caught:
        shell("portable")
    assert "sleap-rtc[peer-portable]" in caught.value.hint_text
    with pytest.raises(UsageError, match=r"WebRTC is not installed") as caught:
        shell("auto")
    assert "sleap-rtc[peer]" in caught.value.hint_text
    assert "sleap-rtc[peer-portable]" in caught.value.hint_text
