"""Two real libraries, and a worker that answers without a network."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from types import SimpleNamespace

from blake3 import blake3

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.client.moving import Mover
from sleap_rtc.client.shipping import Wish, pull_models, push_models
from sleap_rtc.client.supplying import Ways
from sleap_rtc.client.transfers import Transfers
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import (
    FeatureMissing,
)
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import pack
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import AskModel
from sleap_rtc.protocol.link import Accepted, FindModel, ModelTold, WantFiles
from sleap_rtc.protocol.moving import CallModels, NameModels, PushModel, WeighModel
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


@contextlib.contextmanager
def open_lab(root):
    """A laptop's library and a worker's, both empty."""
    with (
        Registry(root / "mine" / "models", index_dir=root / "i1") as mine,
        Registry(root / "theirs" / "models", index_dir=root / "i2") as theirs,
    ):
        yield Lab(root, mine, theirs)
