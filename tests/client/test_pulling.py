"""Pulls between two real libraries, from one worker and from several."""

from __future__ import annotations

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.client.shipping import Offer, call_here
from sleap_rtc.errors import (
    AliasTaken,
    UnknownModel,
)
from sleap_rtc.testing import model_files

from .shipping_lab import open_lab


@pytest.fixture
def lab(tmp_path):
    with open_lab(tmp_path) as opened:
        yield opened


class Evil:
    def __reduce__(self):
        return eval, ("1",)


class TestPull:
    async def test_a_pair_from_there(self, lab) -> None:
        head = lab.put(lab.theirs, "head", best=b"1")
        body = lab.put(lab.theirs, "body", head="centered_instance", best=b"22")
        lab.theirs.set_alias("flies", head.id, body.id)
        shipped = await lab.pull("flies")
        assert [(m.how, m.result) for m in shipped.moved] == [
            ("added", head.id),
            ("added", body.id),
        ]
        assert [(o.alias, o.state) for o in shipped.offers] == [("flies", "free")]
        mine = lab.mine.get(head.id).record
        assert (mine.source, mine.package) == ("worker-pull", head.record.package)
        [at] = mine.locations
        assert (at.name, at.path) == ("gpu-1", str(head.directory))
        given = call_here(lab.mine, shipped.offers[0])
        assert (given.state, given.given) == ("ours", True)
        again = await lab.pull("flies", alias="flies")
        assert [m.how for m in again.moved] == ["known", "known"]
        assert [(o.state, o.given) for o in again.offers] == [("ours", False)]
        assert list(lab.mine.incoming.iterdir()) == []

    async def test_what_is_in_the_way_here(self, lab) -> None:
        mine = lab.put(lab.mine, best=b"old", alias="fly")
        lab.put(lab.theirs, born=2, best=b"new")
        shipped = await lab.pull(mine.id)
        [clash] = shipped.clashes.values()
        assert (clash.where, clash.other, clash.locked) == ("this machine", "fly", "")
        assert [m.how for m in (await lab.pull(mine.id, if_exists="skip")).moved] == ["skipped"]
        shipped = await lab.pull(mine.id, if_exists="overwrite")
        [moved] = shipped.moved
        assert (moved.how, moved.result) == ("replaced", mine.id)
        assert lab.mine.get("fly").record.files[0].blake3 == blake3(b"new").hexdigest()

    async def test_one_that_is_not_there(self, lab) -> None:
        for lab.worker.old in (False, True):
            with pytest.raises(UnknownModel, match="no model 'fly' on gpu-1"):
                await lab.pull("fly")

    async def test_one_that_is_in_use_here_stays(self, lab) -> None:
        mine = lab.put(lab.mine, best=b"old")
        lab.mine.update(mine.id, lambda old: replace(old, status="interrupted"))
        lab.put(lab.theirs, born=2, best=b"new")
        shipped = await lab.pull(mine.id, if_exists="overwrite")
        assert [f.error.code for f in shipped.failed] == ["conflict"]
        shipped = await lab.pull(mine.id)
        assert "a job still needs it" in shipped.clashes[mine.id].locked

    async def test_one_without_files_or_in_training(self, lab) -> None:
        entry = lab.put(lab.theirs)
        lab.theirs.update(entry.id, lambda old: replace(old, files=(), package=None))
        assert [f.error.code for f in (await lab.pull(entry.id)).failed] == ["files_missing"]
        lab.theirs.update(entry.id, lambda old: replace(old, status="training"))
        assert [f.error.code for f in (await lab.pull(entry.id)).failed] == ["conflict"]

    async def test_one_that_is_noted_here_as_in_training(self, lab) -> None:
        entry = lab.put(lab.theirs)
        bare = replace(entry.record, files=(), package=None)
        lab.mine.register(replace(bare, status="training"))
        shipped = await lab.pull(entry.id)
        assert "sleap-rtc sync" in shipped.failed[0].error.hint_text
        lab.mine.mark_interrupted(entry.id, None, 1)
        assert [m.how for m in (await lab.pull(entry.id)).moved] == ["completed"]
        assert lab.mine.get(entry.id).record.status == "completed"

    async def test_a_file_that_could_run_something_needs_a_yes(self, lab) -> None:
        evil = model_files.torch_zip(Evil())
        entry = lab.put(lab.theirs, best_ckpt=evil)
        shipped = await lab.pull(entry.id)
        [failed] = shipped.failed
        assert failed.error.code == "not_trusted"
        assert "--trust" in failed.error.hint_text
        assert list(lab.mine.walk()) == []
        shipped = await lab.pull(entry.id, trust=True)
        [moved] = shipped.moved
        assert [each.state for each in lab.transfers.all()] == ["done"]
        assert (moved.how, moved.safety, moved.sent) == ("added", "flagged", 0)
        assert lab.mine.get(entry.id).record.trust.files == ("best.ckpt",)

    async def test_from_an_older_worker(self, lab) -> None:
        entry = lab.put(lab.theirs, alias="fly")
        lab.worker.old = True
        shipped = await lab.pull("fly")
        assert [(m.how, m.result) for m in shipped.moved] == [("added", entry.id)]
        mine = lab.put(lab.mine, "mine", best=b"mine")
        [failed] = (await lab.push(mine.id)).failed
        assert failed.error.code == "feature_missing"
        assert "can't be sent models" in failed.error.message

    @pytest.mark.parametrize(
        ("lie", "code"),
        [
            ({"files": 10_001, "listing": 10**6}, "data"),
            ({"files": 0}, "data"),
            ({"listing": 2**27}, "data"),
            ({"id": "9" * 64}, "data"),
            ({"size": 2**50}, "out_of_space"),
        ],
    )
    async def test_a_worker_that_lies(self, lab, lie, code) -> None:
        entry = lab.put(lab.theirs)
        lab.worker.lies = lambda told: replace(told, package=replace(told.package, **lie))
        [failed] = (await lab.pull(entry.id)).failed
        assert failed.error.code in (code, "data")
        assert list(lab.mine.walk()) == []

    async def test_a_hostile_name_is_not_even_offered(self, lab) -> None:
        entry = lab.put(lab.theirs)
        lab.worker.old = True
        lab.worker.lies = lambda told: replace(told, alias="../../x")
        shipped = await lab.pull(entry.id)
        assert ([m.how for m in shipped.moved], shipped.offers) == (["added"], ())

    async def test_names_here_are_never_taken(self, lab) -> None:
        lab.put(lab.mine, "other", best=b"other", alias="Fly")
        entry = lab.put(lab.theirs, alias="fly")
        with pytest.raises(AliasTaken):
            await lab.pull("fly", alias="fly")
        assert lab.transfers.all() == []
        shipped = await lab.pull("fly")
        assert [o.state for o in shipped.offers] == ["taken"]
        await lab.pull("fly", alias="mine")
        [offer] = (await lab.pull("fly", alias="another")).offers
        assert offer.why == "It is called 'mine' already."
        assert lab.mine.get(entry.id).alias == "mine"
        taken = call_here(lab.mine, Offer(alias="FLY", models=(entry.id,), state="free"))
        assert taken.why


class TestSeveral:
    """Several workers, one of which may have something else."""

    async def test_what_others_have_is_shared_and_what_they_lack_is_said(self, lab) -> None:
        entry = lab.put(lab.theirs, best=bytes(range(256)) * 4096 * 6, alias="flies")
        lab.mover.beside = tuple(
            lab.another(f"gpu-{number}", has) for number, has in ((2, True), (3, False), (4, None))
        )
        said = []
        for mover in lab.mover.beside:
            mover.say = said.append
        [moved] = (await lab.pull("flies")).moved
        assert (moved.how, moved.result) == ("added", entry.id)
        assert {c.source for c in moved.came} <= {"gpu-1", "gpu-2"}
        assert sum(c.size for c in moved.came) >= 6 * 2**20
        assert len(said) == 2
        assert "gpu-3 gives nothing of" in said[0]
        assert "gpu-4 has other content under the id" in said[1]
