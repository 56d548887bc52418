"""The package itself: what it offers, and that it costs nothing to import."""

from __future__ import annotations

import re

import pytest

import sleap_rtc
from sleap_rtc.client import api, synchronous


def test_it_offers_what_it_says() -> None:
    assert sleap_rtc.Client is synchronous.Client
    assert sleap_rtc.AsyncClient is api.AsyncClient
    assert re.fullmatch(r"\d+\.\d+\.\d+", sleap_rtc.__version__)
    assert sorted(sleap_rtc.__all__) == ["AsyncClient", "Client", "__version__"]


def test_it_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = sleap_rtc.Server
