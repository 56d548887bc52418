"""``transfers`` over what this machine remembers, without any other machine."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from sleap_rtc.cli import transferring
from sleap_rtc.client.transfers import Transfer, Transfers
from sleap_rtc.errors import LinkLost
from sleap_rtc.files.packing import pack
from sleap_rtc.files.partial import claim_partial
from sleap_rtc.storage import upload

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def known(home):
    return Transfers(home.root / "transfers")


def begun(known, *, direction="pull", package="1", result=None) -> Transfer:
    wanted = Transfer(
        id="",
        direction=direction,
        model="0a1b2c3d",
        label="fly",
        model_type="centroid",
        package=package * 64,
        size=4_000_000,
        worker="gpu-1",
        room="a" * 32,
        begun_at=NOW,
        changed_at=NOW,
    )
    try:
        with known.begin(wanted) as going:
            if result is None:
                raise LinkLost(peer="gpu-1", why="it said goodbye")
            going.finish(result)
    except LinkLost:
        pass
    return going.transfer


def arrived(home, transfer):
    """Something that has arrived of a pull."""
    models = home.root / "models"
    claim = claim_partial(
        models / ".incoming", transfer.package, f"{models}/centroid_{transfer.model}"
    )
    (claim.directory / "journal").write_bytes(b"x" * 5_000)
    claim.release()
    return claim.directory


def test_none(cli, home) -> None:
    done = cli("transfers")
    assert (done.code, done.out) == (0, "")
    assert "No transfer is unfinished." in done.err
    assert "No transfer is remembered." in cli("transfers", "list", "--all").err
    assert cli("transfers", "--json").document == {"transfers": []}
    assert "No transfer was cut." in cli("transfers", "resume").err
    assert "Every transfer is finished." in cli("transfers", "cancel", "--all").err


def test_what_is_unfinished_and_how_it_goes_on(cli, home, known) -> None:
    begun(known, direction="push", package="2", result="0a1b2c3d")
    cut = begun(known)
    arrived(home, cut)
    done = cli("transfers")
    assert done.code == 0
    assert "from gpu-1" in done.out
    assert "it said goodbye" in done.out
    assert "sleap-rtc transfers resume" in done.err
    [one] = cli("transfers", "list", "--json").document["transfers"]
    assert (one["id"], one["state"], one["attempts"]) == (cut.id, "cut", 1)
    assert one["kept"] >= 5_000
    assert one["resume"] == f"sleap-rtc transfers resume {cut.short}"
    every = cli("transfers", "list", "--all", "--json").document["transfers"]
    assert [each["state"] for each in every] == ["cut", "done"]


def test_one(cli, home, known) -> None:
    cut = begun(known)
    done = cli("transfers", "show", cut.short)
    assert done.code == 0
    for text in (cut.id, "fly, centroid, id 0a1b2c3d", "cut", "attempt 1"):
        assert text in done.out
    assert cli("transfers", "show", "ffffffff").code == 3


def test_giving_up_removes_what_has_arrived(cli, home, known) -> None:
    cut, other = begun(known), begun(known, package="3")
    folder, stays = arrived(home, cut), arrived(home, other)
    done = cli("transfers", "cancel", cut.short)
    assert (done.code, done.out) == (0, f"{cut.short}: the pull of fly is given up\n")
    assert not folder.exists()
    assert stays.exists()
    assert cli("transfers", "cancel", cut.short).code == 4
    assert cli("transfers", "resume", cut.short).code == 4
    assert cli("transfers", "cancel").code == 2
    assert cli("transfers", "cancel", "--all").code == 0
    assert not stays.exists()


def test_one_that_a_process_is_at_is_left_alone(cli, home, known) -> None:
    cut = begun(known)
    with known.claimed(cut):
        assert cli("transfers", "cancel", cut.short).code == 4
    assert known.get(cut.id).state == "cut"


def test_going_on_in_a_room_that_this_machine_left(cli, home, known) -> None:
    cut = begun(known)
    done = cli("transfers", "resume", cut.short, "--json")
    assert done.code == 3
    assert done.document == {"moves": [], "stored": []}
    assert known.get(cut.id).state == "cut"


# ── jobs' data ───────────────────────────────────────────────────────────────


def cut_while_storing(known, path) -> Transfer:
    wanted = Transfer(
        id="",
        direction="store",
        model="",
        label="flies.pkg.slp",
        model_type="",
        package=pack({"labels/a.slp": path}).package.id,
        size=7,
        worker="",
        room="a" * 32,
        begun_at=NOW,
        changed_at=NOW,
        files={"labels/a.slp": str(path)},
    )
    try:
        with known.begin(wanted) as going:
            raise LinkLost(peer="the storage", why="it went away")
    except LinkLost:
        return going.transfer


def test_what_a_job_brings_and_was_not_stored_yet(cli, known, tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.slp"
    path.write_bytes(b"content")
    cut = cut_while_storing(known, path)
    done = cli("transfers")
    assert "flies.pkg.slp" in done.out
    assert "to storage" in done.out
    [one] = cli("transfers", "--json").document["transfers"]
    assert (one["direction"], one["state"], one["worker"]) == ("store", "cut", "")
    assert "flies.pkg.slp" in cli("transfers", "show", cut.short).out
    resumed = cli("transfers", "resume", cut.short)
    assert resumed.code == 3, resumed  # this machine is in no such room
    forgotten = []
    monkeypatch.setattr(upload, "forget_uploads", lambda state, files: forgotten.extend(files))
    gone = cli("transfers", "cancel", cut.short)
    assert gone.out == f"{cut.short}: the storing of flies.pkg.slp is given up\n"
    assert forgotten == [path]


def test_data_and_results_of_jobs(cli, home) -> None:
    sent = home.job(1, state="preparing")
    home.job(2, state="running")
    made = home.job(3, state="completed", track=True)
    unsent = home.job(4)
    found = cli("transfers", "--json").document["transfers"]
    assert [(one["id"], one["direction"], one["state"]) for one in found] == [
        (unsent.id, "send", "cut"),
        (made.id, "fetch", "cut"),
        (sent.id, "send", "going"),
    ]
    assert found[1]["resume"] == f"sleap-rtc jobs attach {made.id[-8:]}"
    shown = cli("transfers", "show", made.id[-8:])
    assert "from gpu-1" in shown.out
    assert f"sleap-rtc jobs show {made.id[-8:]}" in shown.out
    # A job is ended by its own command, and followed alone.
    refused = cli("transfers", "cancel", sent.id[-8:])
    assert refused.code == 4
    assert f"sleap-rtc jobs cancel {sent.id[-8:]}" in refused.err
    refused = cli("transfers", "cancel", made.id[-8:])
    assert (refused.code, "stays on gpu-1" in refused.err) == (4, True)
    assert cli("transfers", "resume", sent.id[-8:], made.id[-8:]).code == 2
    assert cli("transfers", "resume", made.id[-8:]).code == 3  # this machine is in no such room
    told = cli("transfers", "resume").err
    for job in (made, unsent):
        assert f"sleap-rtc jobs attach {job.id[-8:]}" in told
    assert "No transfer was cut" not in told


def test_a_pull_from_several_says_so_and_goes_on_from_all(cli, home, known, monkeypatch) -> None:
    cut = begun(known)
    known.write(replace(cut, beside=("gpu-2",), transport="s3"))
    assert "from gpu-1 and gpu-2" in cli("transfers").out
    asked = []

    def again(_app, direction, _wish, **how):
        asked.append((direction, how))
        raise LinkLost(peer="gpu-1", why="it is away")

    monkeypatch.setattr(transferring, "move_again", again)
    assert cli("transfers", "resume").code == 5
    way = {"workers": ("gpu-1", "gpu-2"), "room": "a" * 32, "transport": "s3"}
    assert asked == [("pull", way)]
