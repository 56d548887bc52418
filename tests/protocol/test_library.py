"""Questions about a library: what is asked is known to be new, and pages stay small.

That every message comes back, bounds included, is in test_link_messages.py.
"""

from __future__ import annotations

import json
from typing import get_args

import pytest

from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol import library, link
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.library import ListedModel, ListModels, ModelsTold
from sleap_rtc.protocol.link import NEEDS, Notice, Reply, Request, frames
from sleap_rtc.testing.made_room import NOON


def test_every_request_of_the_feature_needs_it() -> None:
    ours = [body for body in get_args(link.RequestBody) if body.__module__ == library.__name__]
    assert len(ours) == 5
    assert set(ours) == {body for body, feature in NEEDS.items() if feature == library.FEATURE}
    assert library.FEATURE in link.FEATURES
    assert set(NEEDS.values()) <= set(link.CANNOT)


def test_a_word_that_is_not_known_yet_is_no_breach() -> None:
    asked = ListModels(statuses=("archived",), sort="altitude", where="orbit")
    raw = frames.encode(Request(id="a", within_s=1, body=asked))
    assert frames.decode(raw, peer="a peer").body == asked


@pytest.mark.parametrize(
    ("op", "fields", "name"),
    [
        ("list_models", {"limit": 0}, "limit"),
        ("list_models", {"limit": 101}, "limit"),
        ("list_models", {"text": "x" * 1_001}, "text"),
        ("list_models", {"types": ["x"] * 33}, "types"),
        ("list_models", {"types": ["x" * 65]}, "types"),
        ("list_models", {"cursor": "x" * 8_193}, "cursor"),
        ("ask_model", {"name": ""}, "name"),
        ("ask_model", {"name": "x" * 201}, "name"),
        ("ask_model", {"name": "x", "first": -1}, "first"),
        ("ask_model", {"name": "x", "first": 10_001}, "first"),
        ("check_models", {"names": []}, "names"),
        ("check_models", {"names": ["x"] * 101}, "names"),
        ("want_part", {"model": "../../etc", "hashes": ["0" * 64]}, "model"),
        ("want_part", {"model": "0a1b2c3d", "hashes": []}, "hashes"),
        ("want_part", {"model": "0a1b2c3d", "hashes": ["0" * 64] * 257}, "hashes"),
        ("want_part", {"model": "0a1b2c3d", "hashes": ["0" * 63]}, "hashes"),
    ],
)
def test_bounds_hold(op: str, fields: dict[str, object], name: str) -> None:
    plain = {"type": "request", "id": "a", "within_s": 1, "body": {"op": op} | fields}
    with pytest.raises(ProtocolError, match=rf"\.{name}"):
        frames.decode(json.dumps(plain), peer="a peer")


def test_a_notice_of_too_many_models_is_refused() -> None:
    plain = {"type": "notice", "body": {"op": "library_changed", "models": ["0a1b2c3d"] * 101}}
    with pytest.raises(ProtocolError, match="models"):
        frames.decode(json.dumps(plain), peer="a peer")
    plain["body"]["models"] = ["0a1b2c3d"]
    told = frames.decode(json.dumps(plain), peer="a peer")
    assert isinstance(told, Notice)


def test_a_page_of_usual_models_fits_a_message() -> None:
    model = ListedModel(
        id="0a1b2c3d",
        alias="flies-v12:centered_instance",
        name="two_mice_centered_instance_260301",
        model_type="centered_instance",
        status="completed",
        source="worker-training",
        created_at=NOON,
        completed_at=NOON,
        full_hash="0" * 64,
        package="0" * 64,
        size=2**31,
        files=12,
        best_val_loss=0.00123456789,
        epochs=150,
        tags=("mice", "social"),
        path="/var/lib/sleap-rtc/worker/models/centered_instance_0a1b2c3d",
    )
    raw = frames.encode(Reply(id="a" * 36, body=ModelsTold(models=(model,) * 85, cursor="x" * 120)))
    assert len(raw) < MAX_MESSAGE
