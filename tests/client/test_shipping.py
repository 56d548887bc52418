"""Models that move within one machine, and the ways that are asked for."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from sleap_rtc.client.supplying import Ways
from sleap_rtc.files import nearby

from .shipping_lab import DATA, open_lab


@pytest.fixture
def lab(tmp_path):
    with open_lab(tmp_path) as opened:
        yield opened


class TestNear:
    """Both sides are this user's; the marks are real, and so is what the worker's side answers."""

    @pytest.fixture(autouse=True)
    def any_way(self, lab) -> None:
        lab.mover.ways = Ways()

    async def test_a_pull_reads_files_where_they_are(self, lab) -> None:
        entry = lab.put(lab.theirs, best=DATA, alias="flies")
        [planned] = (await lab.pull("flies", explain=True)).plans
        assert (planned.label, planned.size) == ("flies", len(DATA))
        assert planned.plan.ways[0].why == "both sides are on one machine"
        assert lab.mine.list().entries == ()
        [moved] = (await lab.pull("flies")).moved
        assert [(c.way, c.source, c.size) for c in moved.came] == [("local", "gpu-1", len(DATA))]
        assert (moved.how, moved.result, moved.sent) == ("added", entry.id, 0)

    async def test_a_push_lets_files_be_read_where_they_are(self, lab) -> None:
        entry = lab.put(lab.mine, best=DATA)
        [planned] = (await lab.push(entry.id, explain=True)).plans
        assert planned.plan.uses("local")
        assert lab.theirs.list().entries == ()
        [moved] = (await lab.push(entry.id)).moved
        assert [(c.way, c.source, c.size) for c in moved.came] == [("local", "ada", len(DATA))]
        assert (moved.how, moved.sent) == ("added", 0)

    async def test_files_of_a_model_that_was_imported_by_link_are_read_where_they_are(
        self, lab
    ) -> None:
        mine = lab.put_links(lab.mine, "one", DATA)
        theirs = lab.put_links(lab.theirs, "two", DATA[::-1])
        [moved] = (await lab.push(mine.id)).moved
        assert [(c.way, c.source, c.size) for c in moved.came] == [("local", "ada", len(DATA))]
        assert not (lab.theirs.get(mine.id).directory / "best").is_symlink()
        [moved] = (await lab.pull(theirs.id)).moved
        assert [(c.way, c.source, c.size) for c in moved.came] == [("local", "gpu-1", len(DATA))]
        assert not (lab.mine.get(theirs.id).directory / "best").is_symlink()

    async def test_content_that_isnt_what_it_should_be_comes_over_the_link(self, lab) -> None:
        entry = lab.put(lab.mine, best=DATA)
        path = entry.directory / "best"
        before = path.stat()

        async def push(body):
            path.write_bytes(DATA[::-1])  # between the proof and the reading
            try:
                return await lab.worker.pushes.push(lab.worker, lab.worker.asker, body)
            finally:
                path.write_bytes(DATA)
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        lab.worker.push = push
        shipped = await lab.push(entry.id)
        assert [f.error.code for f in shipped.failed] == ["source_changed"], shipped
        lab.worker.push = None
        [moved] = (await lab.push(entry.id)).moved
        assert moved.how == "added"

    @pytest.mark.parametrize("wish", ["webrtc", "direct"])
    async def test_another_way_is_asked_for(self, lab, wish) -> None:
        lab.mover.ways = Ways(wish=wish)
        entry = lab.put(lab.mine, best=b"12345")
        [moved] = (await lab.push(entry.id)).moved
        assert [(c.way, c.source, c.size) for c in moved.came] == [("webrtc", "laptop", 5)]

    async def test_it_takes_the_place_of_storage_that_can_not_be_had(self, lab) -> None:
        said = []
        lab.mover.say = said.append
        lab.mover.ways = Ways(wish="s3")
        mine = lab.put(lab.mine, best=b"12345")
        lab.put(lab.theirs, best=b"54321", name="theirs", alias="flies")
        [pushed] = (await lab.push(mine.id)).moved
        [pulled] = (await lab.pull("flies")).moved
        assert [[c.way for c in moved.came] for moved in (pushed, pulled)] == [["local"]] * 2
        assert len(said) == 2
        for text in said:
            assert text.startswith("s3 is not used: what asks for it isn't installed here")
            assert text.endswith(" In its place: local, then webrtc.")

    async def test_a_stranger_is_not_believed(self, lab, monkeypatch) -> None:
        monkeypatch.setattr(nearby.os, "geteuid", lambda: 4711)
        lab.put(lab.theirs, best=b"12345", alias="flies")
        [moved] = (await lab.pull("flies")).moved
        assert [(c.way, c.size) for c in moved.came] == [("webrtc", 5)]

    async def test_a_proof_that_is_passed_on_is_worth_nothing(self, lab) -> None:
        """Who is no peer of this machine has two others of it prove to each other that they are."""
        mallory = "e" * 64
        # A worker of another machine, to this one's client; and a client there, to its worker: it
        # asks each of them what the other one asks, and shows each what the other one made.
        lab.worker.asker = replace(lab.worker.asker, device=mallory)
        lab.worker.proven.peer.device = mallory
        entry = lab.put(lab.mine, best=b"12345")
        lab.put(lab.theirs, best=b"54321", name="theirs", alias="flies")
        [moved] = (await lab.push(entry.id)).moved
        assert [(c.way, c.size) for c in moved.came] == [("webrtc", 5)]
        [moved] = (await lab.pull("flies")).moved
        assert [(c.way, c.size) for c in moved.came] == [("webrtc", 5)]

    async def test_while_the_link_is_down_nothing_is_proven(self, lab) -> None:
        lab.worker.proven = None
        entry = lab.put(lab.mine, best=b"12345")
        [moved] = (await lab.push(entry.id)).moved
        assert [(c.way, c.size) for c in moved.came] == [("webrtc", 5)]


async def test_a_way_that_was_asked_for_and_isnt_used_is_said(lab) -> None:
    said = []
    lab.mover.say = said.append
    lab.mover.ways = Ways(wish="s3")
    lab.put(lab.theirs, best=b"12345", alias="flies")
    [moved] = (await lab.pull("flies")).moved
    assert moved.how == "added"
    assert len(said) == 1
    assert said[0].startswith("s3 is not used: what asks for it isn't installed here")
    lab.mover.ways = Ways(wish="direct")
    entry = lab.put(lab.mine, "other", best=b"54321")
    assert (await lab.push(entry.id)).moved
    assert said[1:] == ["direct was asked for; 5 B came by webrtc."]
