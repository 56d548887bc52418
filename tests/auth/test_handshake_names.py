"""Which worker is at the other end: its own word, and the device that was met before."""

from __future__ import annotations

from typing import Any

import pytest

from sleap_rtc.auth.handshake import Done, SaveWorker
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.domain.ids import fingerprint
from sleap_rtc.errors import WorkerChanged
from sleap_rtc.testing.handshakes import run
from sleap_rtc.testing.made_room import MadeRoom

NAMED: dict[str, Any] = {"name": "gpu-1"}


@pytest.mark.parametrize("name", ["gpu-1", "GPU-1"])
def test_a_worker_is_remembered_by_its_name(house: MadeRoom, worker: SigningKey, name: str) -> None:
    ends = run(house, offerer={"expected_worker": name}, answerer=NAMED)
    assert ends.proven()
    assert ends.of("offerer", SaveWorker) == [SaveWorker(name, worker.device)]
    assert isinstance(ends.effects["offerer"][-1], Done)  # kept before it is relied on
    assert ends.of("answerer", SaveWorker) == []


def test_another_member_in_the_place_of_a_worker_is_noticed_at_once(house: MadeRoom) -> None:
    """The server says that this device is gpu-1, and the device itself has another name."""
    ends = run(house, offerer={"expected_worker": "gpu-1"}, answerer={"name": "gpu-2"})
    assert ends.nobody_is_fooled()
    assert (
        "gives it as the worker gpu-1, and it calls itself gpu-2" in ends.error("offerer").message
    )
    nameless = run(house, offerer={"expected_worker": "gpu-1"})
    assert nameless.nobody_is_fooled()
    assert "calls itself nothing" in nameless.error("offerer").message


def test_another_device_under_a_known_name_is_refused(house: MadeRoom, worker: SigningKey) -> None:
    """It may even lie about its name together with the server."""
    known = house.key(8).device
    meant = {"expected_worker": "gpu-1", "known_worker": known}
    ends = run(house, offerer=meant, answerer=NAMED)
    assert ends.nobody_is_fooled()
    error = ends.error("offerer")
    assert isinstance(error, WorkerChanged)
    assert fingerprint(known) in error.message
    assert fingerprint(worker.device) in error.message
    assert "workers --accept-new gpu-1" in error.hint_text
    assert run(house, offerer=meant | {"known_worker": worker.device}, answerer=NAMED).proven()


@pytest.mark.parametrize("who", ["offerer", "answerer"])
def test_a_removed_device_gives_its_name_free(
    house: MadeRoom, worker: SigningKey, who: str
) -> None:
    known = house.key(8).device
    changes: dict[str, dict[str, Any]] = {
        "offerer": {"expected_worker": "gpu-1", "known_worker": known},
        "answerer": dict(NAMED),
    }
    changes[who]["membership"] = house.next_list(revoked=(known,))
    ends = run(house, **changes)
    assert ends.proven()
    saved = SaveWorker("gpu-1", worker.device, instead_of=known)
    assert ends.of("offerer", SaveWorker) == [saved]


def test_whoever_expects_no_worker_takes_any_name(house: MadeRoom) -> None:
    ends = run(house, offerer={"name": "laptop"}, answerer=NAMED)
    assert ends.proven()
    assert ends.of("answerer", SaveWorker) == ends.of("offerer", SaveWorker) == []
