"""Messages about models that move; what they hold is bounded."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.models import Location, ModelFile, ModelRecord
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import ProtocolError
from sleap_rtc.protocol.link import CANNOT, NEEDS, Request, frames
from sleap_rtc.protocol.moving import (
    FEATURE,
    MAX_FLAGGED,
    CallModels,
    NameModels,
    PushModel,
    WeighModel,
    sendable,
)

NOW = datetime(2026, 4, 1, tzinfo=UTC)
PACKAGE = PackageRef(id="1" * 64, size=10, files=1, listing=100)


def record(**changes) -> ModelRecord:
    given = {
        "id": "0a1b2c3d",
        "name": "run",
        "model_type": "centroid",
        "status": "completed",
        "source": "worker-training",
        "created_at": NOW,
        "package": "1" * 64,
        "canonical": "{}",
        "files": (ModelFile(path="best.ckpt", size=10, blake3="0" * 64),),
    }
    return ModelRecord(**given | changes)


def test_older_peers_are_never_sent_them() -> None:
    assert {NEEDS[kind] for kind in (NameModels, WeighModel, PushModel, CallModels)} == {FEATURE}
    assert CANNOT[FEATURE] == "be sent models"


def test_a_usual_record_travels_with_its_recipe_and_without_its_files() -> None:
    sent = sendable(record())
    assert (sent.files, sent.canonical, sent.package) == ((), "{}", "1" * 64)


@given(
    canonical=st.sampled_from(["{}", "\x01" * 100_000]),
    notes=st.sampled_from(["", "\x01" * 1_000]),
    places=st.sampled_from([0, 1_000]),
    failure=st.sampled_from([None, "\x01" * 8_000]),
)
def test_whatever_a_record_holds_it_can_be_sent(canonical, notes, places, failure) -> None:
    at = Location(kind="worker", name="\x01" * 1_000, last_seen=NOW, path="\x01" * 4_096)
    told = sendable(
        record(canonical=canonical, notes=notes, locations=(at,) * places, failure=failure)
    )
    body = WeighModel(record=told, package=PACKAGE, flagged=("2" * 64,) * MAX_FLAGGED)
    frame = Request(id="r" * 64, within_s=10, body=body)
    assert frames.decode(frames.encode(frame), peer="ada") == frame


@pytest.mark.parametrize(
    "body",
    [
        NameModels(name="x" * 201),
        WeighModel(record=record(files=()), package=PACKAGE, flagged=("2" * 64,) * 65),
        WeighModel(record=record(files=()), package=PACKAGE, flagged=("no hash",)),
        PushModel(record=record(files=()), package=PACKAGE, if_exists="destroy"),
        CallModels(alias="fly", models=()),
        CallModels(alias="fly", models=("0a1b2c3d",) * 3),
        CallModels(alias="x" * 65, models=("0a1b2c3d",)),
    ],
)
def test_what_is_out_of_bounds_breaks_the_rules(body) -> None:
    sent = frames.encode(Request(id="r", within_s=10, body=body))
    with pytest.raises(ProtocolError):
        frames.decode(sent, peer="ada")
