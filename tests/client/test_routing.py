"""By which way a job's data goes: the plan by what is known, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from sleap_rtc.client import routing, storing
from sleap_rtc.client.composing import Composed, new_job_id
from sleap_rtc.client.parts import inputs_of, parts_of
from sleap_rtc.client.routing import carry_out, first_look, plan_for, survey, weigh
from sleap_rtc.client.storing import Stored
from sleap_rtc.config import load
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import (
    FeatureMissing,
    NotFound,
    PathNotPermitted,
    StorageOff,
    StorageUnreachable,
)
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.datasets import LinkedFile, SharedFile, StoredFile
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec, TrainStage
from sleap_rtc.protocol.datasets import DataWeighed

LABELS = "labels/a.slp"
CONFIG = "configs/0/c.yaml"


@pytest.fixture
def composed(tmp_path):
    files = {LABELS: tmp_path / "a.slp", CONFIG: tmp_path / "c.yaml"}
    files[LABELS].write_bytes(b"l" * 2_000)
    files[CONFIG].write_bytes(b"c" * 10)
    packed = pack(files)
    work = TrainSpec(
        labels=LABELS,
        stages=(TrainStage(config=CONFIG, model_type="centroid", run_name="r"),),
        dataset_name="a.slp",
        dataset_hash=packed.file_hashes[LABELS],
    )
    inputs = ref(packed.package)
    spec = JobSpec(id=new_job_id(), engine="tiny", work=work, inputs=inputs, room="a" * 32)
    return Composed(spec=spec, packed=packed, files=files)


@pytest.fixture
def settings(tmp_path):
    def with_these(**changes):
        return load({"home": tmp_path / "home", "large_file_threshold": 1_000} | changes)

    return with_these


class Storage:
    """What a room's storage says when it is asked."""

    def __init__(self, says: int | Exception, monkeypatch) -> None:
        self.says = says
        self.stored: list[str] = []
        self.fails: Exception | None = None
        monkeypatch.setattr(storing, "bytes_there", self._bytes_there)
        monkeypatch.setattr(storing, "store_files", self._store_files)

    def open(self):
        return self

    def _bytes_there(self, _store, _files):
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def _store_files(self, _store, _packed, files, **_):
        if self.fails is not None:
            raise self.fails
        self.stored = [file.name for file in files]
        keys = {file.name: f"uploads/r/{file.checksum}" for file in files}
        return Stored(keys=keys, sent=sum(file.size for file in files), there=0)


@pytest.fixture
def storage(monkeypatch):
    return Storage(0, monkeypatch)


def routed(composed, settings, storage, *weighed, **more):
    told = None if None in weighed else weighed
    planned = survey(first_look(settings, composed, leaves=False), told, storage)
    said = []
    done = carry_out(planned, composed, settings=settings, storage=storage, say=said.append, **more)
    return done, said


def kinds(done) -> dict[str, type]:
    return {each.name: type(each) for each in done.composed.spec.datasets}


def test_small_data_goes_over_the_link_and_nobody_is_asked(composed, settings, storage):
    planned = first_look(settings(large_file_threshold=2_011), composed, leaves=False)
    assert not planned.given.asks
    assert planned.plan.ways[0].kind == "webrtc"
    done = carry_out(planned, composed, settings=settings(), storage=storage)
    assert done.way == "webrtc"
    assert set(kinds(done).values()) == {LinkedFile}
    assert first_look(settings(large_file_threshold=2_010), composed, leaves=False).given.asks
    assert first_look(settings(large_file_threshold=2_011), composed, leaves=True).given.asks


def test_large_data_is_stored_first(composed, settings, storage):
    done, said = routed(composed, settings(), storage, DataWeighed(storage=True))
    assert (done.way, done.sent, said) == ("s3", 2_010, [])
    assert set(kinds(done).values()) == {StoredFile}
    assert len(done.places) == 2
    assert {d.checksum for d in done.composed.spec.datasets} == set(
        composed.packed.file_hashes.values()
    )


def test_what_the_worker_has_isnt_stored(composed, settings, storage):
    done, _ = routed(composed, settings(), storage, DataWeighed(here=2_010, storage=True))
    assert (done.way, storage.stored) == ("webrtc", [])


def test_what_the_worker_sees_is_named_by_its_path(composed, settings, storage):
    weighed = DataWeighed(seen=(LABELS, "a stranger"), storage=True)
    done, _ = routed(composed, settings(), storage, weighed)
    assert done.way == "local"
    assert kinds(done) == {LABELS: SharedFile, CONFIG: LinkedFile}
    assert done.places == (str(composed.files[LABELS]),)
    done, _ = routed(composed, settings(transport="s3"), storage, weighed)
    assert done.way == "s3"
    assert set(kinds(done).values()) == {StoredFile}


@pytest.mark.parametrize(
    ("weighed", "why"),
    [
        (None, "too old"),
        (DataWeighed(), "lacks the extra http"),
    ],
)
def test_a_worker_that_cant_ask_storage(composed, settings, storage, weighed, why):
    told = None if weighed is None else [weighed]
    planned = survey(first_look(settings(), composed, leaves=False), told, storage)
    assert why in planned.plan.explain()
    assert planned.plan.ways[-1].kind == "webrtc"
    with pytest.raises(NotFound, match=why) as caught:
        routed(composed, settings(transport="s3"), storage, weighed)
    assert "Nothing was queued" in caught.value.hint_text


def test_a_server_without_storage(composed, settings, storage):
    storage.says = StorageOff(server="https://lab.org")
    weighed = DataWeighed(storage=True)
    done, said = routed(composed, settings(), storage, weighed)
    assert (done.way, said) == ("webrtc", [])
    with pytest.raises(StorageOff) as caught:
        routed(composed, settings(transport="s3"), storage, weighed)
    assert "--transport webrtc" in caught.value.hint_text


def test_storage_that_fails_in_the_middle(composed, settings, storage):
    weighed = DataWeighed(storage=True)
    storage.fails = StorageUnreachable(store="there", why="it broke")
    done, said = routed(composed, settings(), storage, weighed)
    assert done.way == "webrtc"
    assert set(kinds(done).values()) == {LinkedFile}
    assert len(said) == 1
    assert "it broke" in said[0]
    with pytest.raises(StorageUnreachable) as caught:
        routed(composed, settings(transport="s3"), storage, weighed)
    assert "Nothing was queued" in caught.value.hint_text


def test_a_path_that_the_worker_doesnt_see(composed, settings, storage):
    with pytest.raises(PathNotPermitted) as caught:
        routed(composed, settings(transport="local"), storage, DataWeighed(storage=True))
    assert str(composed.files[LABELS]) in caught.value.message
    assert "worker_shared" in caught.value.hint_text


def test_a_package_of_too_many_files_comes_over_the_link(tmp_path, composed, settings, storage):
    files = {}
    for number in range(101):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"v" * 100)
        files[f"videos/{number}.mp4"] = path
    many = Composed(spec=composed.spec, packed=pack(files), files=files)
    planned = first_look(settings(), many, leaves=True)
    assert "no job can name so many files" in planned.plan.explain()
    done = carry_out(planned, many, settings=settings(), storage=storage)
    assert (done.way, done.composed.spec.datasets) == ("webrtc", ())


def test_paths_are_as_the_user_named_them(tmp_path, composed):
    link = tmp_path / "link.slp"
    link.symlink_to(composed.files[LABELS])
    files = {**composed.files, LABELS: Path(os.path.relpath(link))}
    named = inputs_of(Composed(spec=composed.spec, packed=composed.packed, files=files))
    assert {f.place for f in named if f.name == LABELS} == {str(link)}


async def test_an_older_worker_isnt_asked(composed):
    class Link:
        async def request(self, body, within_s):
            assert {each.name for each in body.datasets} == {LABELS, CONFIG}
            raise FeatureMissing(peer="gpu-1", what="do it")

    assert await weigh(Link(), parts_of(composed)) is None


# ── models ───────────────────────────────────────────────────────────────────


@pytest.fixture
def tracking(composed, tmp_path):
    """A job that brings one model, imported by link, and names one that the worker has."""
    real = tmp_path / "real.ckpt"
    real.write_bytes(b"m" * 5_000)
    folder = tmp_path / "library" / "centroid_0a1b2c3d"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_bytes(b"y" * 20)
    files = {"best.ckpt": real, "config.yaml": folder / "config.yaml"}
    model = pack(files, root=folder)
    package = ref(model.package)
    work = TrackSpec(
        models=(
            ModelRef(id="0a1b2c3d", package=package.id, offered=package),
            ModelRef(id="1a1b2c3d", package="e" * 64),
        ),
        videos=(LABELS,),
    )
    spec = msgspec.structs.replace(composed.spec, work=work)
    return Composed(spec=spec, packed=composed.packed, files=composed.files, models=(model,))


def of_models(done):
    return [
        {each.name: type(each) for each in model.datasets}
        for model in done.composed.spec.work.models
    ]


def test_one_plan_is_for_all_that_a_job_brings(tracking, settings, storage):
    large = settings(large_file_threshold=7_031)
    assert not first_look(large, tracking, leaves=False).given.asks
    assert first_look(settings(large_file_threshold=7_030), tracking, leaves=False).given.asks
    done = carry_out(
        first_look(large, tracking, leaves=False), tracking, settings=large, storage=storage
    )
    assert done.way == "webrtc"
    assert of_models(done) == [{"best.ckpt": LinkedFile, "config.yaml": LinkedFile}, {}]
    assert not done.composed.spec.waits_for_nobody


def test_a_model_is_stored_with_the_rest(tracking, settings, storage):
    has = DataWeighed(storage=True)
    done, said = routed(tracking, settings(), storage, has, has)
    assert (done.way, done.sent, said) == ("s3", 7_030, [])
    assert set(kinds(done).values()) == {StoredFile}
    assert of_models(done) == [{"best.ckpt": StoredFile, "config.yaml": StoredFile}, {}]
    assert len(done.places) == 4
    assert done.composed.spec.waits_for_nobody


def test_a_model_is_read_where_it_is(tracking, settings, storage, tmp_path):
    seen = DataWeighed(seen=("best.ckpt",), storage=True)
    done, _ = routed(tracking, settings(transport="local"), storage, DataWeighed(), seen)
    assert done.way == "local"
    assert of_models(done)[0] == {"best.ckpt": SharedFile, "config.yaml": LinkedFile}
    assert done.places == (str(tmp_path / "real.ckpt"),)


def test_what_was_stored_before_storage_failed_is_used(tracking, settings, storage, monkeypatch):
    has = DataWeighed(storage=True)
    works = storing.store_files

    def once(*args, **more):
        done = works(*args, **more)
        storage.fails = StorageUnreachable(store="there", why="it broke")
        return done

    monkeypatch.setattr(storing, "store_files", once)
    done, said = routed(tracking, settings(), storage, has, has)
    assert set(kinds(done).values()) == {StoredFile}
    assert set(of_models(done)[0].values()) == {LinkedFile}
    assert len(said) == 1
    assert not done.composed.spec.waits_for_nobody


async def test_who_gives_up_waits_for_no_server(composed, settings, monkeypatch):
    asking, going_on = threading.Event(), threading.Event()

    def silent(*_):
        asking.set()
        going_on.wait(30)

    async def told(*_):
        return None

    monkeypatch.setattr(routing, "survey", silent)
    monkeypatch.setattr(routing, "weigh", told)
    client = SimpleNamespace(
        settings=settings(),
        devices=SimpleNamespace(room=lambda _: None),
        link=lambda *_: contextlib.nullcontext(),
    )
    planning = asyncio.create_task(plan_for(client, composed, "gpu", ask=True))
    assert await asyncio.to_thread(asking.wait, 20)
    began = time.monotonic()
    planning.cancel()
    await asyncio.wait([planning])
    assert planning.cancelled()
    assert time.monotonic() - began < 1
    going_on.set()
