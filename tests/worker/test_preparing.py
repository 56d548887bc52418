"""What is looked at before a job's trainer may see it. The rest: tests/endtoend."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import zipfile
from datetime import UTC, datetime

import msgspec
import pytest

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.domain.ids import make_uuid7
from sleap_rtc.domain.models import Interruption, ModelFile, ModelRecord
from sleap_rtc.domain.packages import PackageRef, ref
from sleap_rtc.domain.values import decode
from sleap_rtc.errors import (
    EngineMissing,
    NotFound,
    NotTrusted,
    OutOfSpace,
    PathNotPermitted,
    StorageOff,
    UnknownModel,
)
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.datasets import NamedFile, linked, shared, stored
from sleap_rtc.jobs.events import Logged
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec, TrainStage
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.datasets import WeighData
from sleap_rtc.storage.cache import FileCache
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.worker.dataset_source import Places
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.preparing import Preparer
from sleap_rtc.worker.runner.plan import RunnerPlan
from sleap_rtc.worker.shared import SharedFolders


class Offered:
    """Peers who offer packages: their files are on this machine."""

    def __init__(self, *packed) -> None:
        self._by_id = {each.package.id: each for each in packed}

    def has_source(self, package: str) -> bool:
        return package in self._by_id

    @contextlib.contextmanager
    def sources(self, package: str):
        found = self._by_id.get(package)
        if found is None:
            yield Sources()
            return
        source = LocalSource(found)
        yield Sources(source)
        source.close()


class NoStorage:
    """A room without storage."""

    can = True
    missing = StorageOff(server="http://lab")

    def open(self):
        raise self.missing

    def close(self) -> None:
        pass


@pytest.fixture
def registry(tmp_path):
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as found:
        yield found


@pytest.fixture
def make(tmp_path, registry):
    def preparer(*offered, **changes) -> Preparer:
        asked = {
            "root": tmp_path,
            "registry": registry,
            "peers": Offered(*offered),
            "engines": lambda: {"tiny": "1"},
            "approvals": Approvals(tmp_path / "trusted"),
            "worker": "gpu-1",
            "device_name": "cpu",
            "threads": 1,
            "patience": 0.0,
            "keep_free": 0,
            "places": Places(
                storage=NoStorage(),
                folders=SharedFolders([tmp_path / "shared"]),
                cache=FileCache(tmp_path / "cache", limit=10**9),
                cache_size=10**9,
            ),
        }
        return Preparer(**asked | changes)

    return preparer


def clean(folder):
    """A checkpoint with nothing strange in it."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "best.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 3}, protocol=2))
    (folder / "training_config.yaml").write_text("model_config: {}")
    return folder


def strange(folder):
    folder.mkdir()
    (folder / "best.ckpt").write_bytes(pickle.dumps(eval))
    return folder


def packed(folder):
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return pack(files, root=folder)


def in_library(registry, folder, **changes):
    """A model with these files, as it came from elsewhere."""
    package = packed(folder)
    files = tuple(
        ModelFile(path=e.path, size=e.size, blake3=package.file_hashes[e.path])
        for e in package.package.files
    )
    record = ModelRecord(
        id="0a1b2c3d",
        name="run",
        model_type="centroid",
        status="imported",
        source="local-import",
        created_at=datetime.now(UTC),
        files=files,
        package=package.package.id,
    )
    staged = registry.incoming / "staged"
    shutil.copytree(folder, staged)
    return registry.place(staged, msgspec.structs.replace(record, **changes))


def tracking(video, *models):
    return JobSpec(
        id=make_uuid7(unix_ms=1_000, randomness=b"0" * 10),
        engine="tiny",
        work=TrackSpec(models=models, videos=("v.mp4",)),
        inputs=ref(video.package),
        room="a" * 32,
    )


class Log:
    """What a job's log is told."""

    def __init__(self) -> None:
        self.bodies = []

    def append(self, body) -> None:
        self.bodies.append(body)

    @property
    def lines(self):
        return [body.line for body in self.bodies if isinstance(body, Logged)]


@pytest.fixture
def video(tmp_path):
    folder = tmp_path / "source" / "video"
    folder.mkdir(parents=True)
    (folder / "v.mp4").write_bytes(b"pictures")
    return packed(folder)


@pytest.fixture
def job(tmp_path):
    root = tmp_path / "job"
    root.mkdir()
    return JobDirectory(root=root)


def plan_of(job):
    return decode(RunnerPlan, job.plan.read_bytes(), what="plan")


async def test_a_model_of_the_library_is_used_where_it_is(make, registry, video, job, tmp_path):
    entry = in_library(registry, clean(tmp_path / "model"))
    ref_ = ModelRef(id=entry.id, package=entry.record.package)
    log = Log()
    assert await make(video)(job, tracking(video, ref_), log, lambda: None) == "ready"
    assert plan_of(job).models == (str(entry.directory),)
    assert plan_of(job).inputs == str(tmp_path / "datasets" / video.package.id)
    [said] = log.lines
    assert entry.id in said
    assert ref_.package[:12] in said


async def test_a_model_is_known_by_its_content_whatever_its_suffix(
    make, registry, video, job, tmp_path
):
    other = tmp_path / "other"
    clean(other)
    (other / "training_config.yaml").write_text("model_config: {other: 1}")
    in_library(registry, other)
    wanted = in_library(registry, clean(tmp_path / "model"))
    assert wanted.id == "0a1b2c3d-2"
    for name in ("0a1b2c3d", "0a1b2c3d-2", "0a1b2c3d-7"):
        ref_ = ModelRef(id=name, package=wanted.record.package)
        assert await make(video)(job, tracking(video, ref_), Log(), lambda: None) == "ready"
        assert plan_of(job).models == (str(wanted.directory),)


async def test_a_model_that_isnt_here_is_fetched_from_who_submitted_the_job(
    make, registry, video, job, tmp_path
):
    model = packed(clean(tmp_path / "source" / "model"))
    ref_ = ModelRef(id="0a1b2c3d", package=model.package.id, offered=ref(model.package))
    spec = tracking(video, ref_)
    preparer = make(video, model)
    assert preparer.at_hand(spec)
    assert await preparer(job, spec, Log(), lambda: None) == "ready"
    [place] = plan_of(job).models
    assert place == str(tmp_path / "datasets" / model.package.id)
    assert (tmp_path / "datasets" / model.package.id / "best.ckpt").is_file()
    assert registry.list().entries == ()
    # And the next job needs nobody.
    assert await make()(job, spec, Log(), lambda: None) == "ready"
    unoffered = tracking(video, ModelRef(id="0a1b2c3d", package=model.package.id))
    assert await make()(job, unoffered, Log(), lambda: None) == "ready"


async def test_one_of_the_library_that_is_damaged_is_fetched_as_well(
    make, registry, video, job, tmp_path
):
    folder = clean(tmp_path / "source" / "model")
    entry = in_library(registry, folder)
    (entry.directory / "training_config.yaml").unlink()
    model = packed(folder)
    ref_ = ModelRef(id=entry.id, package=model.package.id, offered=ref(model.package))
    assert await make(video, model)(job, tracking(video, ref_), Log(), lambda: None) == "ready"
    assert plan_of(job).models == (str(tmp_path / "datasets" / model.package.id),)


async def test_a_model_that_nobody_has_is_named(make, video, job):
    unknown = ModelRef(id="0a1b2c3d", package="ab" * 32)
    with pytest.raises(UnknownModel, match="0a1b2c3d") as raised:
        await make(video)(job, tracking(video, unknown), Log(), lambda: None)
    assert "gpu-1 has no model with the content abababababab" in raised.value.hint_text


async def test_inputs_that_nobody_offers_are_waited_for_no_longer_than_patience(
    make, video, job, tmp_path
):
    ref_ = ModelRef(id="0a1b2c3d", package="ab" * 32, offered=ref(video.package))
    spec = tracking(video, ref_)
    preparer = make()
    assert not preparer.at_hand(spec)
    assert await preparer(job, spec, Log(), lambda: None) == "absent"
    assert not job.plan.exists()
    preparer.forget(spec.offered)
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("fetched", [True, False])
async def test_a_strange_checkpoint_from_elsewhere_is_never_run_without_a_yes(
    make, video, job, registry, fetched
):
    """Whatever its record calls the checkpoint, the trainer loads best.ckpt."""
    root = registry.models_dir.parent
    model = packed(strange(root / "source" / "model"))
    if not fetched:
        in_library(registry, root / "source" / "model")
    ref_ = ModelRef(id="0a1b2c3d", package=model.package.id, offered=ref(model.package))
    spec = tracking(video, ref_)
    with pytest.raises(NotTrusted, match=r"best\.ckpt of model 0a1b2c3d.*eval") as raised:
        await make(video, model)(job, spec, Log(), lambda: None)
    blake3 = model.file_hashes["best.ckpt"]
    assert f"owner of worker gpu-1 can allow it there: sleap-rtc trust-model {blake3}" in (
        raised.value.hint_text
    )
    assert not job.plan.exists()

    Approvals(root / "trusted").approve(blake3, "I made it")
    assert await make(video, model)(job, spec, Log(), lambda: None) == "ready"


async def test_that_it_was_trained_here_is_not_believed(make, registry, video, job, tmp_path):
    """A backup of another library brings records that say so too."""
    entry = in_library(registry, strange(tmp_path / "m"), source="worker-training")
    ref_ = ModelRef(id=entry.id, package=entry.record.package)
    with pytest.raises(NotTrusted, match=r"best\.ckpt of model 0a1b2c3d .*eval"):
        await make(video)(job, tracking(video, ref_), Log(), lambda: None)


async def test_what_a_training_goes_on_from_is_looked_into(make, registry, job, tmp_path):
    """An interrupted model may have been pushed by somebody; the trainer unpickles it."""
    labels = tmp_path / "source" / "labels"
    labels.mkdir(parents=True)
    (labels / "a.slp").write_bytes(b"no labels")
    package = packed(labels)
    entry = in_library(
        registry,
        strange(tmp_path / "m"),
        status="interrupted",
        source="client-upload",
        interruption=Interruption(epoch=3, checkpoint="best.ckpt"),
    )

    def training(resume):
        stage = TrainStage(config="c.yaml", model_type="centroid", run_name="run", resume=resume)
        work = TrainSpec(
            labels="a.slp", stages=(stage,), dataset_name="a.slp", dataset_hash="0" * 64
        )
        return msgspec.structs.replace(tracking(package), work=work)

    preparer = make(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sleap_rtc.worker.preparing.check_labels", _whatever)
        with pytest.raises(NotTrusted, match=r"best\.ckpt of model 0a1b2c3d .*eval") as raised:
            await preparer(job, training(entry.id), Log(), lambda: None)
        assert "trust-model" in raised.value.hint_text
        assert not job.plan.exists()
        # One that isn't here is for whoever begins the training to tell.
        assert await preparer(job, training("0badcafe"), Log(), lambda: None) == "ready"


async def _whatever(inputs, name):
    """Labels that nobody looks into."""
    return inputs / name


def test_the_disk_keeps_some_room(make, video, tmp_path, monkeypatch):
    free = 10_000
    monkeypatch.setattr("sleap_rtc.worker.preparing.free_space", lambda _: free)
    large = PackageRef(id="ab" * 32, size=9_000, files=1, listing=50)
    spec = msgspec.structs.replace(tracking(video), inputs=large)
    make(keep_free=1_000).check_room(spec)
    with pytest.raises(OutOfSpace, match=r" of worker gpu-1 has 10 KB free, and 10 KB are") as no:
        make(keep_free=1_001).check_room(spec)
    assert "worker_keep_free" in no.value.hint_text
    # What is here, and what has its room reserved already, needs no more.
    (tmp_path / "datasets" / large.id).mkdir(parents=True)
    make(keep_free=9_999).check_room(spec)


async def test_inputs_without_room_are_not_begun(make, video, job, tmp_path):
    ref_ = ModelRef(id="0a1b2c3d", package="ab" * 32)
    with pytest.raises(OutOfSpace):
        await make(video, keep_free=2**62)(job, tracking(video, ref_), Log(), lambda: None)
    assert not (tmp_path / "incoming").exists()


async def test_an_engine_that_isnt_installed_is_named(make, video, job):
    with pytest.raises(EngineMissing, match="worker gpu-1"):
        await make(video, engines=dict)(job, tracking(video), Log(), lambda: None)


# ── where a job says that its files are ──────────────────────────────────────


def shared_tracking(folder, **how):
    """A job whose video is on a disk that the worker sees, and the package of it."""
    folder.mkdir()
    path = folder / "v.mp4"
    path.write_bytes(b"pictures")
    video = pack({"v.mp4": path})
    blake3 = video.file_hashes["v.mp4"]
    file = NamedFile(name="v.mp4", size=8, checksum=blake3, place=str(path))
    datasets = (how.get("named", shared)(file),)
    return video, msgspec.structs.replace(tracking(video), datasets=datasets)


async def test_a_file_on_a_shared_disk_needs_nobody(make, job, tmp_path):
    video, spec = shared_tracking(tmp_path / "shared")
    preparer = make()
    assert preparer.at_hand(spec)
    assert await preparer(job, spec, Log(), lambda: None) == "ready"
    assert (tmp_path / "datasets" / video.package.id / "v.mp4").read_bytes() == b"pictures"
    weighed = preparer.weigh(WeighData(package=spec.inputs, datasets=spec.datasets))
    assert (weighed.here, weighed.seen, weighed.storage) == (8, ("v.mp4",), True)


async def test_a_model_on_a_shared_disk_needs_nobody(make, job, tmp_path, registry):
    _, spec = shared_tracking(tmp_path / "shared")
    model = packed(clean(tmp_path / "shared" / "model"))
    files = tuple(
        NamedFile(
            name=each.path,
            size=each.size,
            checksum=model.file_hashes[each.path],
            place=str(tmp_path / "shared" / "model" / each.path),
        )
        for each in model.package.files
    )
    package = ref(model.package)

    def wanting(named):
        brought = ModelRef(
            id="0a1b2c3d",
            package=package.id,
            offered=package,
            datasets=tuple(named(file) for file in files),
        )
        work = msgspec.structs.replace(spec.work, models=(brought,))
        return msgspec.structs.replace(spec, work=work)

    preparer = make()
    assert not preparer.at_hand(wanting(linked))
    assert preparer.at_hand(wanting(shared))
    assert await preparer(job, wanting(shared), Log(), lambda: None) == "ready"
    assert plan_of(job).models == (str(tmp_path / "datasets" / package.id),)
    assert registry.list().entries == ()
    asked = WeighData(package=package, datasets=tuple(map(shared, files)))
    assert preparer.weigh(asked).here == package.size


async def test_one_that_isnt_permitted_comes_from_who_offers_it(make, job, tmp_path):
    video, spec = shared_tracking(tmp_path / "elsewhere")
    log = Log()
    with pytest.raises(PathNotPermitted):
        await make()(job, spec, log, lambda: None)
    assert await make(video)(job, spec, log, lambda: None) == "ready"
    [said] = log.lines
    assert said.endswith("The data has to come over the link.")
    assert make().weigh(WeighData(package=spec.inputs, datasets=spec.datasets)).seen == ()


async def test_what_storage_has_no_more_is_waited_for_and_not_asked_for_again(
    make, job, tmp_path, monkeypatch
):
    monkeypatch.setattr(NoStorage, "missing", NotFound(message="It is gone."))
    video, spec = shared_tracking(tmp_path / "elsewhere", named=lambda f: stored(f, "uploads/r/x"))
    preparer = make()
    assert preparer.at_hand(spec)
    assert await preparer(job, spec, Log(), lambda: None) == "absent"
    assert not preparer.at_hand(spec)
    preparer = make(video)
    assert preparer.at_hand(spec)
    assert await preparer(job, spec, Log(), lambda: None) == "ready"


async def test_storage_that_is_off_ends_a_job_that_nobody_offers(make, job, tmp_path):
    _, spec = shared_tracking(tmp_path / "elsewhere", named=lambda f: stored(f, "uploads/r/x"))
    with pytest.raises(StorageOff):
        await make()(job, spec, Log(), lambda: None)


async def test_whichever_way_it_came_it_is_there_for_the_next_job(make, job, tmp_path):
    video, spec = shared_tracking(tmp_path / "elsewhere", named=linked)
    assert not make().at_hand(spec)
    assert await make(video)(job, spec, Log(), lambda: None) == "ready"
    shutil.rmtree(tmp_path / "datasets")
    asked = WeighData(package=spec.inputs, datasets=spec.datasets)
    assert make().weigh(asked).here == 8
