"""Pushes and pulls between two real libraries; the worker's side answers without a network."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.client import moving, pushing
from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.client.moving import Mover
from sleap_rtc.client.shipping import Offer, Wish, call_here, pull_models, push_models
from sleap_rtc.client.supplying import Ways
from sleap_rtc.client.transfers import Transfers
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import (
    AliasTaken,
    DeadlineExceeded,
    FeatureMissing,
    LinkLost,
    NotFound,
    PeerUnreachable,
    StorageUnreachable,
    UnknownModel,
    UsageError,
)
from sleap_rtc.files import nearby
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import pack
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import AskModel
from sleap_rtc.protocol.link import Accepted, FindModel, ModelTold, WantFiles
from sleap_rtc.protocol.moving import CallModels, NameModels, PushModel, PushMoved, WeighModel
from sleap_rtc.testing import model_files
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.serving import serve_model
from sleap_rtc.worker.library_answers import LibraryAnswers
from sleap_rtc.worker.near_models import NearModels
from sleap_rtc.worker.peers import Asker
from sleap_rtc.worker.pushes import Pushes

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DATA = bytes(range(256)) * 4096 * 5


class Served:
    """Blocks of what the client offers, as a worker asks for them."""

    def __init__(self, offered) -> None:
        self.name = "laptop"
        self._offered = offered

    async def listing(self, ref):
        return self._offered.listing

    async def block(self, package, file, block, size):
        return self._offered.read(file, block)


class Worker:
    """A link whose other end is a worker in the same process.

    Attributes:
        old: Whether it knows no pushes.
        lies: Makes another answer of what it tells of a model.
        fails: Raised instead of answers to pushes, one after the other.
    """

    name = "gpu-1"

    def __init__(self, registry, root) -> None:
        self.registry, self.state = registry, "up"
        self.cache = HashCache(root / "hashes")
        self.answers = LibraryAnswers(registry, cache=self.cache)
        self.asker = Asker(device="a" * 64, name="ada", role="member", session="1", worker="f" * 64)
        peer = SimpleNamespace(device=self.asker.worker)
        self.proven = SimpleNamespace(own=self.asker.device, peer=peer)
        self.pushes = Pushes(
            registry,
            peers=self,
            worker="gpu-1",
            approvals=Approvals(root / "trusted"),
            needed=set,
            max_files=10,
            keep_free=0,
            cache=self.cache,
        )
        self.near = NearModels(registry)
        self.push = None
        self.library = None
        self.old = False
        self.lies = None
        self.fails = []
        self.offers = {}
        self.asked = []

    # ── the client's link ──

    def offer(self, package, served) -> None:
        self.offers[package] = served

    def want_blocks(self) -> None:
        pass

    async def request(self, body, *, within_s=0, id=None):  # noqa: A002
        self.asked.append(type(body))
        if self.lies is not None and isinstance(body, FindModel):
            return self.lies(self._find(body.name))
        if self.old and isinstance(body, NameModels | WeighModel | PushModel | CallModels):
            raise FeatureMissing(peer="gpu-1", what="be sent models")
        match body:
            case NameModels():
                return self.pushes.named(body)
            case WeighModel():
                return await self.pushes.weigh(self.asker, body)
            case PushModel():
                if self.fails:
                    raise self.fails.pop()
                if self.push is not None:
                    return await self.push(body)
                return await self.pushes.push(self, self.asker, body)
            case CallModels():
                return self.pushes.call(self.asker, body)
            case AskModel():
                return self.answers.answer(body)
            case FindModel():
                return self._find(body.name)
            case WantFiles():
                entry = self.registry.get(body.model)
                served = serve_model(entry.record, entry.directory)
                self.library.sources.add(LocalSource(served.packed, name=self.name))
                return await self.near.tell(self.asker, body) or Accepted()

    def _find(self, name):
        entry = self.registry.get(name)
        package = None
        if entry.record.files:
            package = ref(serve_model(entry.record, entry.directory).packed.package)
        return ModelTold(record=entry.record, alias=entry.alias or "", package=package)

    # ── what the worker's side needs ──

    @contextlib.contextmanager
    def offering(self, asker, package):
        yield

    @contextlib.contextmanager
    def sources(self, package):
        yield Sources(Served(self.offers[package]))

    async def tell(self, body) -> None:
        self.library.noticed(body)


class Lab:
    def __init__(self, root, mine, theirs) -> None:
        self.root, self.mine, self.theirs = root, mine, theirs
        self.worker = Worker(theirs, root / "theirs")
        library = self.worker.library = WorkerLibrary("gpu-1")
        library.link = self.worker
        self.transfers = Transfers(root / "transfers")
        self.mover = Mover(
            library,
            self.worker,
            room=SimpleNamespace(room="a" * 32, name="lab"),
            registry=mine,
            cache=HashCache(root / "hashes"),
            transfers=self.transfers,
            ways=Ways(wish="webrtc"),  # on one machine nothing would move
        )
        self.told = []

    def another(self, name, has):
        """To another worker: with the same model, without it, or with another one of its id."""
        root = self.root / name
        registry = Registry(root / "models", index_dir=root / "index")
        if has is not False:
            [entry] = self.theirs.list().entries
            content = (entry.directory / "best").read_bytes() if has else b"other"
            self.put(registry, best=content)
        worker = Worker(registry, root)
        worker.name = name
        library = worker.library = WorkerLibrary(name)
        library.link = worker
        given = {"registry": self.mine, "cache": self.mover.cache, "transfers": self.transfers}
        return Mover(library, worker, room=self.mover.room, **given)

    def put(self, registry, name="run", *, head="centroid", born=1, alias=None, **contents):
        made = recipe(model_type=head, backbone={}, run_name=name, dataset_hash="0" * 64)
        folder = registry.claims.new_folder()
        files = []
        for path, data in (contents or {"best": b"weights"}).items():
            name_there = path.replace("_", ".")
            (folder / name_there).write_bytes(data)
            digest = blake3(data).hexdigest()
            files.append(ModelFile(path=name_there, size=len(data), blake3=digest))
        record = ModelRecord(
            id=made.model_id,
            name=name,
            model_type=head,
            status="completed",
            source="worker-training",
            created_at=NOW.replace(day=born),
            full_hash=made.full_hash,
            files=tuple(files),
            package=pack({file.path: folder / file.path for file in files}).package.id,
        )
        entry = registry.place(folder, record)
        if alias:
            registry.set_alias(alias, entry.id)
        return registry.get(entry.id)

    def put_links(self, registry, name, data):
        """A model as it is after an import by link."""
        real = self.root / f"{name}-is-really-here"
        real.write_bytes(data)
        made = recipe(model_type="centroid", backbone={}, run_name=name, dataset_hash="0" * 64)
        folder = registry.claims.new_folder()
        (folder / "best").symlink_to(real)
        digest = blake3(data).hexdigest()
        record = ModelRecord(
            id=made.model_id,
            name=name,
            model_type="centroid",
            status="imported",
            source="local-import",
            created_at=NOW,
            full_hash=made.full_hash,
            files=(ModelFile(path="best", size=len(data), blake3=digest, link=str(real)),),
            package=pack({"best": real}).package.id,
        )
        return registry.place(folder, record, links=True)

    async def push(self, *names, **wishes):
        return await push_models(
            self.mover, Wish(names=names, **wishes), on_model=lambda *told: self.told.append(told)
        )

    async def pull(self, *names, **wishes):
        return await pull_models(
            self.mover, Wish(names=names, **wishes), on_model=lambda *told: self.told.append(told)
        )


@pytest.fixture
def lab(tmp_path):
    with (
        Registry(tmp_path / "mine" / "models", index_dir=tmp_path / "i1") as mine,
        Registry(tmp_path / "theirs" / "models", index_dir=tmp_path / "i2") as theirs,
    ):
        yield Lab(tmp_path, mine, theirs)


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


class Evil:
    def __reduce__(self):
        return eval, ("1",)


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

    @pytest.mark.parametrize("wish", ["webrtc", "direct", "s3"])
    async def test_another_way_is_asked_for(self, lab, wish) -> None:
        lab.mover.ways = Ways(wish=wish)
        entry = lab.put(lab.mine, best=b"12345")
        [moved] = (await lab.push(entry.id)).moved
        assert [(c.way, c.source, c.size) for c in moved.came] == [("webrtc", "laptop", 5)]

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


async def test_storage_that_fails_is_replaced_by_the_link_and_that_is_said(lab) -> None:
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
    assert (moved.how, [c.way for c in moved.came]) == ("added", ["webrtc"])
    [text] = said
    assert text.startswith("Storage fails, so it goes over the link: ")


async def nothing_stored(*_):
    return 0, ""


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
