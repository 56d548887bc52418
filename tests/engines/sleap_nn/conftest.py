"""The engine's own environment, made by the product's own means, once per machine."""

from __future__ import annotations

import pytest

from sleap_rtc.engines.sleap_nn import environment
from sleap_rtc.engines.sleap_nn.places import Places, default_places
from sleap_rtc.errors import EngineMissing


@pytest.fixture(scope="session")
def places() -> Places:
    found = default_places()
    try:
        environment.find(found)
    except EngineMissing:
        environment.install(environment.plan_installation(found), print)
    return found
