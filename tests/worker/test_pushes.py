"""Models that are pushed to a worker: its real library and disk, and no network between."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import Interruption, Location, ModelFile, ModelRecord, Training, Trust
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import (
    AliasTaken,
    AlreadyExists,
    Conflict,
    DataError,
    LinkLost,
    NotFound,
    NotPermitted,
    NotTrusted,
    OutOfSpace,
    UnknownModel,
    UsageError,
)
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.nearby import Ends, marked
from sleap_rtc.files.packing import pack
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import WantFiles
from sleap_rtc.protocol.moving import (
    CallModels,
    NameModels,
    Near,
    PushModel,
    WeighModel,
    sendable,
)
from sleap_rtc.testing import model_files
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.worker import pushes
from sleap_rtc.worker.near_models import NearModels
from sleap_rtc.worker.peers import Asker
from sleap_rtc.worker.pushes import Pushes

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WORKER = "f" * 64
ADA = Asker(device="a" * 64, name="ada", role="member", session="1", worker=WORKER)
BOB = Asker(device="b" * 64, name="bob", role="member", session="2", worker=WORKER)
OWNER = Asker(device="c" * 64, name="olga", role="owner", session="3", worker=WORKER)
GUEST = Asker(device="d" * 64, name="gus", role="viewer", session="4", worker=WORKER)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


class Channel:
    """What a peer is told."""

    def __init__(self) -> None:
        self.told = []
        self.new = asyncio.Event()
        self.lost = False

    async def tell(self, body) -> None:
        if self.lost:
            raise LinkLost(peer="ada", why="gone")
        self.told.append(body)
        self.new.set()

    async def has_told(self, count: int) -> None:
        while len(self.told) < count:
            self.new.clear()
            await self.new.wait()


class Source(LocalSource):
    """A peer that can be slow, and counts what is asked of it; or storage that is in order."""

    def __init__(self, packed) -> None:
        super().__init__(packed, name="ada")
        self.asked = 0
        self.damaged: dict[str, str] = {}
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def block(self, package, file, block, size):
        await self.goes_on.wait()
        self.asked += 1
        return await super().block(package, file, block, size)


class Lab:
    """A worker's library, and the peers that it can fetch from."""

    def __init__(self, root, registry) -> None:
        self.root, self.registry = root, registry
        self.approvals = Approvals(root / "trusted")
        self.needed = set()
        self.sources_of = {}
        self.offers = []
        self.channel = Channel()
        self.pushes = self.made()

    def made(self, **changes) -> Pushes:
        given = {
            "peers": self,
            "worker": "gpu-1",
            "approvals": self.approvals,
            "needed": lambda: self.needed,
            "max_files": 10,
            "keep_free": 0,
            "cache": HashCache(self.root / "hashes"),
            "clock": lambda: NOW,
        }
        return Pushes(self.registry, **given | changes)

    @contextlib.contextmanager
    def offering(self, asker, package):
        self.offers.append((asker, package))
        yield

    @contextlib.contextmanager
    def sources(self, package):
        yield Sources(*self.sources_of.get(package, ()))

    def model(self, name="run", *, head="centroid", born=1, at=None, **contents):
        """A model that somebody has: the request that pushes it, and who gives its blocks."""
        folder = self.root / "sender" / f"{name}-{born}-{head}"
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in (contents or {"best": b"weights"}).items():
            (folder / path.replace("_", ".")).write_bytes(data)
        paths = {file.name: file for file in folder.iterdir()}
        packed = pack(paths)
        source = Source(packed)
        self.sources_of[packed.package.id] = [source]
        made = recipe(model_type=head, backbone={}, run_name=name, dataset_hash="0" * 64)
        record = ModelRecord(
            id=made.model_id,
            name=name,
            model_type=head,
            status="completed",
            source="worker-training",
            created_at=NOW.replace(day=born),
            full_hash=made.full_hash,
            canonical=made.canonical,
            package=packed.package.id,
            files=tuple(
                ModelFile(path=p, size=f.stat().st_size, blake3=blake3(f.read_bytes()).hexdigest())
                for p, f in paths.items()
            ),
        )
        body = PushModel(record=sendable(record), package=ref(packed.package))
        if at:
            body = replace(body, record=replace(body.record, **at))
        return body, source

    async def push(self, body, asker=ADA, **changes):
        return await self.pushes.push(self.channel, asker, replace(body, **changes))

    async def weigh(self, body, asker=ADA, **more):
        question = WeighModel(record=body.record, package=body.package, **more)
        return await self.pushes.weigh(asker, question)


@pytest.fixture
def lab(tmp_path):
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as registry:
        yield Lab(tmp_path, registry)


async def test_a_model_comes_with_its_record_and_says_who_brought_it(lab) -> None:
    places = (
        Location(kind="worker", name="gpu-1", last_seen=NOW),
        Location(kind="worker", name="gpu-2", last_seen=NOW),
    )
    lies = {
        "checkpoint": "best",
        "config": "../../secret",
        "locations": places,
        "brought_by": "9" * 64,
        "same_recipe_as": "12345678",
        "trust": Trust(at=NOW, files=("best",)),
        "interruption": Interruption(epoch=1, checkpoint="none.ckpt"),
        "source": "worker-training",
        "training": Training(job="00000000-03e9-7404-8101-010101010101", worker="gpu-2"),
        "files": (ModelFile(path="other", size=1, blake3="0" * 64, link="/etc/passwd"),),
    }
    body, _ = lab.model(at=lies)
    assert (await lab.weigh(body)).verdict == "new"
    pushed = await lab.push(body)
    assert (pushed.how, pushed.model) == ("added", body.record.id)
    entry = lab.registry.get(pushed.model)
    kept = entry.record
    assert pushed.path == str(entry.directory)
    assert (kept.source, kept.brought_by, kept.downloaded_at) == ("client-upload", "a" * 64, NOW)
    assert [(file.path, file.link) for file in kept.files] == [("best", None)]
    assert (kept.checkpoint, kept.config, kept.trust, kept.same_recipe_as) == (
        *("best", None),
        *(None, None),
    )
    assert [at.name for at in kept.locations] == ["gpu-2"]
    assert kept.interruption.checkpoint is None
    assert kept.canonical == body.record.canonical
    assert (kept.training.job, kept.training.worker) == (None, "gpu-2")
    assert (ADA, body.package.id) in lab.offers
    phases = [told.phase for told in lab.channel.told]
    assert phases[0] == "waiting"
    assert phases[-1] == "done"
    assert list(lab.registry.incoming.iterdir()) == []


async def test_nothing_moves_twice(lab) -> None:
    body, source = lab.model()
    await lab.push(body)
    assert (await lab.weigh(body, BOB)).verdict == "same"
    assert (await lab.push(body, BOB)).how == "known"
    other, second = lab.model("other", best=b"weights", more=b"and")
    assert (await lab.push(other)).how == "added"
    assert (source.asked, second.asked) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"at": {"status": "training"}}, UsageError, "training can't be pushed"),
        ({"at": {"deleted_at": NOW}}, UsageError, "can't be pushed"),
        ({"at": {"package": "9" * 64}}, UsageError, "another package"),
        ({str(n): b"" for n in range(11)}, UsageError, "11 files; this worker takes 1 to 10"),
        ({"model.json": b"{}"}, None, "keeps its own data"),
        ({"_record": b"{}"}, None, "keeps its own data"),
    ],
)
async def test_what_is_refused(lab, changes, error, why) -> None:
    body, _ = lab.model(**changes)
    with pytest.raises(error or Exception, match=why):
        await lab.push(body)
    if error is not None:
        with pytest.raises(error, match=why):
            await lab.weigh(body)
    assert list(lab.registry.walk()) == []
    assert [each.name for each in lab.registry.incoming.iterdir()] == []


async def test_an_impossible_listing_is_not_even_asked_for(lab) -> None:
    body, source = lab.model()
    with pytest.raises(UsageError, match="impossible"):
        await lab.push(body, package=replace(body.package, listing=2**27))
    assert source.asked == 0


async def test_a_listing_of_something_else_leaves_nothing(lab) -> None:
    body, source = lab.model()
    wrong = replace(body.package, id="9" * 64)
    lab.sources_of[wrong.id] = [source]

    async def listing(_ref):
        return b"SRPK" + b"\xff" * (wrong.listing - 4)

    source.listing = listing
    with pytest.raises(DataError):
        await lab.push(body, record=replace(body.record, package=wrong.id), package=wrong)
    assert list(lab.registry.incoming.iterdir()) == []


async def test_a_slow_sender_keeps_nobody_else_waiting(lab) -> None:
    slow = [lab.model(name, best=name.encode()) for name in ("one", "two", "three")]
    for _, source in slow:
        source.goes_on.clear()
    going = [asyncio.create_task(lab.push(body)) for body, _ in slow]
    await lab.channel.has_told(3)
    assert (await lab.push(lab.model("four", best=b"4")[0], BOB)).how == "added"
    for _, source in slow:
        source.goes_on.set()
    assert [each.how for each in await asyncio.gather(*going)] == ["added"] * 3
    assert (lab.pushes._turns, lab.pushes.at_work) == ({}, set())


async def test_who_only_looks_may_do_none_of_it(lab) -> None:
    body, _ = lab.model()
    with pytest.raises(NotPermitted, match="gus is a viewer"):
        await lab.push(body, GUEST)
    with pytest.raises(NotPermitted):
        await lab.weigh(body, GUEST)
    await lab.push(body)
    with pytest.raises(NotPermitted):
        lab.pushes.call(GUEST, CallModels(alias="fly", models=(body.record.id,)))
    assert lab.pushes.named(NameModels(name=body.record.id[:5])).models == (body.record.id,)


async def test_a_file_that_could_run_something_is_refused_with_what_was_found(lab) -> None:
    evil = model_files.torch_zip(Evil())
    body, _ = lab.model(best_ckpt=evil)
    digest = blake3(evil).hexdigest()
    with pytest.raises(NotTrusted, match="system") as raised:
        await lab.push(body)
    assert f"sleap-rtc trust-model {digest}" in raised.value.hint_text
    assert list(lab.registry.walk()) == []
    assert list(lab.registry.incoming.iterdir()) == []
    with pytest.raises(NotTrusted):
        await lab.weigh(body, flagged=(digest,))
    lab.approvals.approve(digest, "a person said so")
    assert (await lab.weigh(body, flagged=(digest,))).verdict == "new"
    pushed = await lab.push(body)
    assert (pushed.how, pushed.safety) == ("added", "flagged")


async def test_no_room(lab) -> None:
    body, source = lab.model()
    lab.pushes = lab.made(keep_free=2**60)
    with pytest.raises(OutOfSpace, match="of worker gpu-1"):
        await lab.weigh(body)
    with pytest.raises(OutOfSpace):
        await lab.push(body)
    assert source.asked == 0


class TestAnother:
    async def put(self, lab):
        body, _ = lab.model(best=b"old")
        await lab.push(body)
        return lab.model(born=2, best=b"new")[0]

    async def test_it_says_so_and_changes_nothing(self, lab) -> None:
        newer = await self.put(lab)
        weighed = await lab.weigh(newer, BOB)
        assert (weighed.verdict, weighed.model, weighed.size) == ("other", newer.record.id, 3)
        assert "owners of the room may overwrite" in weighed.locked
        assert weighed.code == "not_permitted"
        assert (await lab.weigh(newer, ADA)).locked == ""
        with pytest.raises(AlreadyExists):
            await lab.push(newer, BOB)

    async def test_who_may_overwrite(self, lab) -> None:
        newer = await self.put(lab)
        with pytest.raises(NotPermitted):
            await lab.push(newer, BOB, if_exists="overwrite")
        assert (await lab.push(newer, BOB, if_exists="keep-both")).how == "renamed"
        newest, _ = lab.model(born=3, best=b"newest")
        pushed = await lab.push(newest, ADA, if_exists="overwrite")
        assert (pushed.how, pushed.model) == ("replaced", newer.record.id)
        assert lab.registry.models_dir / ".trash" in lab.root.glob("models/.trash")
        last, _ = lab.model(born=4, best=b"last")
        assert (await lab.push(last, OWNER, if_exists="overwrite")).how == "replaced"
        assert lab.registry.get(last.record.id).record.brought_by == OWNER.device

    async def test_not_while_a_job_needs_it(self, lab) -> None:
        newer = await self.put(lab)
        lab.needed.add(lab.registry.get(newer.record.id).record.package)
        assert "needed by a job" in (await lab.weigh(newer)).locked
        with pytest.raises(Conflict, match="needed by a job"):
            await lab.push(newer, OWNER, if_exists="overwrite")


async def test_one_that_is_cut_goes_on(lab) -> None:
    body, source = lab.model(a=b"a" * 2**20, b=b"b" * 2**20)
    source.goes_on.clear()
    first = asyncio.create_task(lab.push(body))
    await lab.channel.has_told(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(list(lab.registry.incoming.iterdir())) <= 1
    source.goes_on.set()
    assert (await lab.push(body)).how == "added"


async def test_the_same_again_takes_over_from_a_dead_connection(lab) -> None:
    body, source = lab.model()
    source.goes_on.clear()
    first = asyncio.create_task(lab.push(body))
    await lab.channel.has_told(1)
    second = asyncio.create_task(lab.push(body))
    with pytest.raises(Conflict, match="over another connection"):
        await first
    source.goes_on.set()
    assert (await second).how == "added"


async def test_two_who_push_the_same_at_a_time_end_as_one(lab) -> None:
    body, source = lab.model()
    pushed = await asyncio.gather(lab.push(body, ADA), lab.push(body, BOB))
    assert sorted(each.how for each in pushed) == ["added", "known"]
    assert source.asked == 1
    assert lab.pushes._locks == {}


async def test_one_device_has_a_bound(lab, monkeypatch) -> None:
    monkeypatch.setattr(pushes, "MAX_EACH", 2)
    slow = [lab.model(name, best=name.encode()) for name in ("one", "two")]
    for _, source in slow:
        source.goes_on.clear()
    going = [asyncio.create_task(lab.push(body)) for body, _ in slow]
    await lab.channel.has_told(2)
    with pytest.raises(Conflict, match="2 models of this device"):
        await lab.push(lab.model("three", best=b"3")[0])
    assert (await lab.push(lab.model("four", best=b"4")[0], BOB)).how == "added"
    for _, source in slow:
        source.goes_on.set()
    assert [each.how for each in await asyncio.gather(*going)] == ["added", "added"]


async def test_a_sender_without_blocks_is_not_waited_for(lab, monkeypatch) -> None:
    monkeypatch.setattr(pushes, "SOURCE_S", 0.01)
    body, _ = lab.model()
    lab.sources_of.clear()
    lab.channel.lost = True
    with pytest.raises(LinkLost):
        await lab.push(body)


async def test_names(lab) -> None:
    one, two = lab.model()[0], lab.model("body", head="centered_instance", best=b"2")[0]
    ids = [(await lab.push(body)).model for body in (one, two)]
    with pytest.raises(UnknownModel):
        lab.pushes.named(NameModels(name="flies"))
    for _ in range(2):
        lab.pushes.call(ADA, CallModels(alias="flies", models=tuple(ids)))
    named = lab.pushes.named(NameModels(name="flies"))
    assert (list(named.models), named.alias) == (ids, "flies")
    with pytest.raises(AliasTaken):
        lab.pushes.call(ADA, CallModels(alias="FLIES", models=(ids[0],)))
    lab.pushes.call(ADA, CallModels(alias="head", models=(ids[0],)))
    with pytest.raises(Conflict, match="is called 'head' there already"):
        lab.pushes.call(OWNER, CallModels(alias="mine", models=(ids[0],)))
    (lab.root / "secret").write_text("")
    with pytest.raises(UnknownModel):
        lab.pushes.named(NameModels(name=str(lab.root / "secret")))


async def test_what_is_in_storage_comes_from_there(lab, monkeypatch) -> None:
    body, stored = lab.model()
    stored.name = "the room's storage"
    monkeypatch.setattr(pushes, "storage_source", lambda *_: stored)
    lab.sources_of.clear()
    body = replace(body, stored=("1" * 64,))
    with pytest.raises(NotFound, match="gpu-1 can't ask storage"):
        await lab.push(body)
    lab.pushes = lab.made(storage=SimpleNamespace(can=True))
    with pytest.raises(UsageError, match="other files than the package"):
        await lab.push(replace(body, stored=("1" * 64, "2" * 64)))
    pushed = await lab.push(body)
    assert pushed.how == "added"
    assert [(came.source, came.size) for came in pushed.came] == [("the room's storage", 7)]


async def test_files_of_this_user_are_read_where_they_are(lab) -> None:
    body, source = lab.model(best=b"1234567")
    folder = lab.root / "sender" / "run-1-centroid"
    weighed = await lab.weigh(body)
    with marked(weighed.challenge, Ends(reader=WORKER, holder=ADA.device)) as mark:
        near = Near(mark=str(mark), folder=str(folder))
        # Another link's challenge, or another model's, proves nothing here.
        await lab.push(replace(body, near=near), BOB)
        assert source.asked == 1
        other, others = lab.model("other", best=b"7654321")
        await lab.push(replace(other, near=near))
        assert others.asked == 1
    lab.pushes = lab.made()
    second, untouched = lab.model("second", best=b"1726354")
    weighed = await lab.weigh(second)
    with marked(weighed.challenge, Ends(reader=WORKER, holder=ADA.device)) as mark:
        near = Near(mark=str(mark), folder=str(lab.root / "sender" / "second-1-centroid"))
        pushed = await lab.push(replace(second, near=near))
    assert untouched.asked == 0
    assert [(came.way, came.source, came.size) for came in pushed.came] == [("local", "ada", 7)]


async def test_a_mark_that_the_worker_itself_made_proves_nothing_to_it(lab) -> None:
    """Who may fetch a model has the worker make one; it could say what the same worker asked."""
    body, source = lab.model(best=b"1234567")
    weighed = await lab.weigh(body)
    own = NearModels(SimpleNamespace(get=lambda _: SimpleNamespace(directory=lab.root)))
    told = await own.tell(
        ADA, WantFiles(package=body.package, model="0a1b2c3d", challenge=weighed.challenge)
    )
    near = replace(told.near, folder=str(lab.root / "sender" / "run-1-centroid"))
    await lab.push(replace(body, near=near))
    assert source.asked == 1
