"""Pushes between two real libraries; the worker's side answers without a network."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from sleap_rtc.client import moving, pushing
from sleap_rtc.client.supplying import Ways
from sleap_rtc.errors import (
    AliasTaken,
    DeadlineExceeded,
    LinkLost,
    NotFound,
    PeerUnreachable,
    StorageUnreachable,
    UnknownModel,
    UsageError,
)
from sleap_rtc.protocol.moving import NameModels, PushModel, PushMoved

from .shipping_lab import open_lab


@pytest.fixture
def lab(tmp_path):
    with open_lab(tmp_path) as opened:
        yield opened


class TestPush:
    async def test_several_and_how_far_they_are(self, lab) -> None:
        one = lab.put(lab.mine, "one", best=b"1", alias="one")
        two = lab.put(lab.mine, "two", best=b"22")
        shipped = await lab.push("one", two.id[:6], one.id)
        assert [(m.how, m.result, m.sent) for m in shipped.moved] == [
            ("added", one.id, 1),
            ("added", two.id, 2),
        ]
        assert [(t[0], t[1], t[2]) for t in lab.told if t[3] is None] == [
            (0, 2, "one"),
            (1, 2, two.id),
        ]
        assert {t[3].phase for t in lab.told if t[3] is not None} >= {"waiting", "done"}
        assert [(o.alias, o.state, o.given) for o in shipped.offers] == [("one", "free", False)]
        for entry in (one, two):
            [at] = lab.mine.get(entry.id).record.locations
            assert (at.name, at.path) == ("gpu-1", str(lab.theirs.get(entry.id).directory))
        assert [t.state for t in lab.transfers.all()] == ["done", "done"]

    async def test_one_that_fails_keeps_no_other(self, lab) -> None:
        bad = lab.put(lab.mine, "bad", best=b"1")
        (bad.directory / "best").unlink()
        training = lab.put(lab.mine, "training", best=b"3")
        lab.mine.update(training.id, lambda old: replace(old, status="training"))
        good = lab.put(lab.mine, "good", best=b"2")
        shipped = await lab.push(bad.id, training.id, good.id)
        assert [m.result for m in shipped.moved] == [good.id]
        assert [f.error.code for f in shipped.failed] == ["files_missing", "conflict"]

    async def test_what_had_moved_before_the_network_failed_is_told(self, lab) -> None:
        there = lab.put(lab.mine, "there", best=b"1")
        lab.put(lab.theirs, "there", best=b"1")
        cut, behind = (lab.put(lab.mine, name, best=name.encode()) for name in ("cut", "behind"))
        lab.worker.fails = [LinkLost(peer="gpu-1", why="gone")]
        shipped = await lab.push(there.id, cut.id, behind.id)
        assert [m.model for m in shipped.moved] == [there.id]
        assert [f.model for f in shipped.failed] == [cut.id, behind.id]
        assert {f.error for f in shipped.failed} == {shipped.cut}

    @pytest.mark.parametrize("asked", [True, False])
    async def test_a_network_that_fails_when_all_has_moved(self, lab, monkeypatch, asked) -> None:
        entry = lab.put(lab.mine, alias="fly")
        ask = lab.worker.request

        async def request(body, **given):
            if isinstance(body, NameModels) and PushModel in lab.worker.asked:
                raise LinkLost(peer="gpu-1", why="gone")
            return await ask(body, **given)

        monkeypatch.setattr(lab.worker, "request", request)
        shipped = await lab.push(entry.id, alias="fly" if asked else None)
        assert [m.how for m in shipped.moved] == ["added"]
        assert (shipped.cut is not None) is asked

    async def test_an_unknown_one_before_anything_moves(self, lab) -> None:
        entry = lab.put(lab.mine)
        with pytest.raises(UnknownModel):
            await lab.push(entry.id, "nothing")
        assert lab.worker.asked == []

    async def test_what_is_in_the_way(self, lab) -> None:
        theirs = lab.put(lab.theirs, best=b"old", alias="fly")
        mine = lab.put(lab.mine, born=2, best=b"new")
        assert mine.id == theirs.id
        shipped = await lab.push(mine.id)
        [clash] = shipped.clashes.values()
        assert (clash.where, clash.other, clash.size) == ("gpu-1", "fly", 3)
        assert "owners of the room" in clash.locked
        assert [f.error.code for f in shipped.failed] == ["already_exists"]
        shipped = await lab.push(mine.id, choices={mine.id: "skip"})
        assert [(m.how, m.result) for m in shipped.moved] == [("skipped", mine.id)]
        shipped = await lab.push(mine.id, if_exists="overwrite")
        assert [f.error.code for f in shipped.failed] == ["not_permitted"]
        assert PushModel not in lab.worker.asked  # refused before anything was offered
        shipped = await lab.push(mine.id, if_exists="keep-both")
        assert [(m.how, m.result) for m in shipped.moved] == [("renamed", f"{mine.id}-2")]
        assert lab.transfers.all()[0].if_exists == "keep-both"

    async def test_a_pair_and_its_name(self, lab) -> None:
        head = lab.put(lab.mine, "head", best=b"1")
        body = lab.put(lab.mine, "body", head="centered_instance", best=b"2")
        lab.mine.set_alias("flies", head.id, body.id)
        shipped = await lab.push("flies", alias="flies")
        assert [(o.alias, o.state, o.given) for o in shipped.offers] == [("flies", "ours", True)]
        assert lab.theirs.get_alias("flies").models == (head.id, body.id)
        again = await lab.push("flies", alias="flies")
        assert [(o.state, o.given) for o in again.offers] == [("ours", False)]

    async def test_a_name_is_never_taken(self, lab) -> None:
        lab.put(lab.theirs, "other", best=b"other", alias="fly")
        entry = lab.put(lab.mine, alias="fly")
        with pytest.raises(AliasTaken):
            await lab.push(entry.id, alias="fly")
        assert PushModel not in lab.worker.asked
        shipped = await lab.push(entry.id)
        assert [o.state for o in shipped.offers] == ["taken"]
        await lab.push(entry.id, alias="mine")
        shipped = await lab.push(entry.id, alias="another")
        [offer] = shipped.offers
        assert (offer.given, lab.theirs.get(entry.id).alias) == (False, "mine")
        assert "is called 'mine'" in offer.why
        three = [lab.put(lab.mine, name, best=name.encode()).id for name in "abc"]
        with pytest.raises(UsageError, match="3 models can't share one alias"):
            await lab.push(*three, alias="all3")

    async def test_a_network_that_goes_away_ends_it_all(self, lab) -> None:
        one, two = lab.put(lab.mine, "one", best=b"1"), lab.put(lab.mine, "two", best=b"2")
        lab.worker.fails = [LinkLost(peer="gpu-1", why="gone")]
        with pytest.raises(LinkLost):
            await lab.push(one.id, two.id)
        assert [t.state for t in lab.transfers.all()] == ["cut"]
        assert (await lab.push(one.id, two.id)).failed == ()
        assert [t.attempts for t in lab.transfers.all()] == [1, 2]

    async def test_killed_when_it_was_there_already(self, lab) -> None:
        entry = lab.put(lab.mine)
        lab.worker.fails = [LinkLost(peer="gpu-1", why="gone")]
        with pytest.raises(LinkLost):
            await lab.push(entry.id)
        lab.put(lab.theirs)
        assert [m.how for m in (await lab.push(entry.id)).moved] == ["known"]
        [transfer] = lab.transfers.all()
        assert (transfer.state, transfer.result, transfer.why) == ("done", entry.id, "")

    async def test_one_that_lasts_longer_than_a_request(self, lab) -> None:
        entry = lab.put(lab.mine)
        lab.worker.fails = [DeadlineExceeded(what="An answer", seconds="3600")]
        assert [m.how for m in (await lab.push(entry.id)).moved] == ["added"]

    async def test_a_worker_that_stays_away(self, lab, monkeypatch) -> None:
        monkeypatch.setattr(moving, "LOOK_S", 0.001)
        monkeypatch.setattr(moving, "PATIENCE_S", 0.005)
        lab.worker.state = "down"

        async def never(*_):
            await asyncio.Event().wait()

        lab.worker.pushes.push = never
        with pytest.raises(PeerUnreachable, match="away"):
            await lab.push(lab.put(lab.mine).id)

    async def test_what_was_pushed_is_not_offered_any_more(self, lab) -> None:
        entry = lab.put(lab.mine)
        await lab.push(entry.id)
        [gone] = lab.worker.offers.values()
        with pytest.raises(NotFound):
            gone.read(0, 0)
        with pytest.raises(NotFound):
            _ = gone.listing

    async def test_what_is_told_of_another_package_is_nobodys(self, lab) -> None:
        await lab.worker.tell(PushMoved(package="9" * 64, phase="receiving", done=1, total=2))
        assert lab.told == []


async def test_storage_that_fails_is_replaced_and_that_is_said(lab) -> None:
    def fails():
        raise StorageUnreachable(store="lab", why="it hung up")

    said = []
    entry = lab.put(lab.mine, best=b"12345")
    storage = SimpleNamespace(can=True, open=fails)
    lab.mover.ways = Ways(wish="s3", storage=storage, uploads=lab.root / "uploads")
    lab.mover.say = said.append
    # It was there when the ways were chosen.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pushing, "in_storage", nothing_stored)
        [moved] = (await lab.push(entry.id)).moved
    assert (moved.how, [c.way for c in moved.came]) == ("added", ["local"])
    [text] = said
    assert text.startswith("Storage fails, so gpu-1 fetches it from here: ")


async def nothing_stored(*_):
    return 0, ""
