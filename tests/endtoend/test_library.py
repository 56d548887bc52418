"""What a worker has, seen from a laptop: server, worker and commands as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc.cli.care_documents import RepairDocument, SyncDocument
from sleap_rtc.cli.model_documents import (
    ModelsDocument,
    WorkerModelInfoDocument,
    WorkerModelsDocument,
)
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import Location, Metrics, ModelFile, ModelRecord
from sleap_rtc.files.packing import pack
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import ListModels

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT_S = 120.0


class Done(NamedTuple):
    code: int
    out: str
    err: str

    def as_(self, kind: type) -> Any:
        """What ``--json`` printed, in its whole shape."""
        assert self.code == 0, self.err
        return msgspec.convert(json.loads(self.out), kind)


def typed(lab: Any, *arguments: object, answers: str = "", code: int = 0) -> Done:
    """A command of the laptop's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLEAP_RTC_")}
    if "SLEAP_RTC_NETNS" in os.environ:
        kept["SLEAP_RTC_NETNS"] = os.environ["SLEAP_RTC_NETNS"]
    kept |= {"SLEAP_RTC_HOME": str(lab.client.home), "SLEAP_RTC_NAME": "laptop"}
    kept |= {"SLEAP_RTC_INSECURE": "1", "XDG_CACHE_HOME": str(lab.root / "cache")}
    kept["COLUMNS"] = "120"  # so much that no column has to go when it all took minutes
    done = subprocess.run(
        [sys.executable, "-m", "sleap_rtc", *map(str, arguments)],
        env=kept,
        input=answers,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def below(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def put(
    models: Path, number: int, *, files: dict[str, bytes] | None = None, **changes: Any
) -> Entry:
    """Put a model into a library, as a training would leave it there."""
    contents = {"best.ckpt": b"weights " * 400_000 + b"%d" % number, "training_log.csv": b"epoch\n"}
    contents = contents if files is None else files
    given = {
        "id": ModelId(f"{number:08x}"),
        "name": f"run {number}",
        "model_type": "centroid",
        "status": "completed",
        "source": "worker-training",
        "created_at": NOW,
        "metrics": Metrics(best_val_loss=1 / number),
    } | changes
    with Registry(models, index_dir=models.parent / "put-index") as registry:
        if not contents:
            return registry.register(ModelRecord(**given))
        folder = registry.incoming / f"put-{number}"
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        listed = tuple(
            ModelFile(path=name, size=len(content), blake3=blake3(content).hexdigest())
            for name, content in contents.items()
        )
        package = pack({name: folder / name for name in contents}).package.id
        record = ModelRecord(
            files=listed, package=package, checkpoint=next(iter(contents)), **given
        )
        return registry.place(folder, record)


def test_what_a_worker_has_is_listed_as_ones_own_library_is(lab) -> None:
    theirs, mine = lab.worker.directory / "models", lab.client.home / "models"
    for number in range(1, 4):
        put(theirs, number, tags=("mice",) if number > 1 else ())
    put(theirs, 4, model_type="centered_instance")
    same = put(mine, 2, tags=("mice",))
    with Registry(theirs, index_dir=lab.root / "name-index") as registry:
        registry.set_alias("flies", "00000003")
        registry.set_alias("pair", "00000001", "00000004")
    lab.worker.begin()
    ask = ("worker", "list-models", "--worker", "gpu-1")

    told = typed(lab, *ask, "--json", "--tag", "mice", "--sort-by", "loss").as_(
        WorkerModelsDocument
    )
    assert (told.worker, told.room, told.more) == ("gpu-1", "lab", 0)
    assert [model.alias or model.id for model in told.models] == ["flies", "00000002"]
    assert [model.local for model in told.models] == [False, True]
    assert [model.tags for model in told.models] == [("mice",), ("mice",)]
    own = typed(lab, "list-models", "--json").as_(ModelsDocument).models[0]
    assert own.package == told.models[1].package == same.record.package
    table = typed(lab, *ask, "--limit", "2")
    assert table.out.split()[:4] == ["model", "type", "status", "where"]
    assert "gpu-1" in table.out.splitlines()[1]
    assert "2 more" in table.err
    assert typed(lab, "worker", "list-models", "-q", "--search", "flies").out == "flies\n"
    assert typed(lab, *ask, "--format", "csv").out.startswith("id,alias,")
    assert "No model of gpu-1 fits." in typed(lab, *ask, "--type", "bottomup").err

    info = typed(lab, "worker", "model-info", "flies", "--json").as_(WorkerModelInfoDocument)
    assert info.model.record["name"] == "run 3"
    assert [(file.path, file.state) for file in info.model.files] == [
        ("best.ckpt", "ok"),
        ("training_log.csv", "ok"),
    ]
    assert info.model.model.path == str(theirs / "centroid_00000003")
    shown = typed(lab, "worker", "model-info", "0000000", "--worker", "gpu-1", code=2)
    assert "00000001" in shown.err
    here = typed(lab, "worker", "model-info", "00000002", "--json").as_(WorkerModelInfoDocument)
    assert (here.model.model.local, here.model.model.locations) == (True, ("worker:gpu-1",))
    shown = typed(lab, "worker", "model-info", "00000002", "--worker", "gpu-1")
    assert "sleap-rtc track --model 00000002" in " ".join(shown.out.split())

    # What is not there, not known, or not online.
    assert "'nobody'" in typed(lab, "worker", "model-info", "nobody", code=3).err
    assert "pair:centroid" in typed(lab, "worker", "model-info", "pair", code=2).err
    assert "gpu-9" in typed(lab, "worker", "list-models", "--worker", "gpu-9", code=3).err


def test_sync_says_what_is_where_and_whom_it_could_not_ask(lab) -> None:
    theirs, mine = lab.worker.directory / "models", lab.client.home / "models"
    put(theirs, 1)
    put(theirs, 2, tags=("mice",))
    put(mine, 1)
    gone = Location(kind="worker", name="gpu-1", last_seen=NOW, path="/there")
    away = Location(kind="worker", name="gpu-2", last_seen=NOW, path="/there")
    put(mine, 3, files={}, locations=(gone, away))
    lab.worker.begin()

    told = typed(lab, "sync", "--json").as_(SyncDocument)
    (worker,) = told.workers
    assert (worker.worker, worker.more) == ("gpu-1", 0)
    assert sorted((step.change, step.id) for step in worker.steps) == [
        ("added", "00000002"),
        ("missing", "00000003"),
        ("updated", "00000001"),
    ]
    assert [(one.worker, one.last_seen) for one in told.unreached] == [("gpu-2", NOW)]
    found = {
        model.id: model for model in typed(lab, "list-models", "--json").as_(ModelsDocument).models
    }
    assert (found["00000001"].local, found["00000001"].locations) == (True, ("worker:gpu-1",))
    assert (found["00000002"].local, found["00000002"].locations) == (False, ("worker:gpu-1",))
    assert found["00000003"].locations == ("worker:gpu-2",)

    again = typed(lab, "sync", "--worker", "gpu-1")
    assert again.out == ""
    assert "gpu-1: 2 as they were." in again.err
    assert "'gpu-9'" in typed(lab, "sync", "--worker", "gpu-9", code=3).err


async def test_answers_are_kept_until_something_changes(lab) -> None:
    theirs = lab.worker.directory / "models"
    put(theirs, 1)
    lab.worker.begin()
    async with (
        AsyncClient(lab.client.settings) as client,
        client.library_of("gpu-1") as library,
    ):
        first = await library.page(ListModels())
        assert await library.page(ListModels()) is first
        assert await library.exists("00000001", "00000002") == (True, False)

        import asyncio  # noqa: PLC0415 - only here

        changed = asyncio.Event()
        told: list[tuple[ModelId, ...]] = []
        library.on_change = lambda models: (told.append(models), changed.set())
        await asyncio.to_thread(put, theirs, 2)
        async with asyncio.timeout(60):
            while not any("00000002" in models for models in told):
                changed.clear()
                await changed.wait()
        assert len((await library.page(ListModels())).models) == 2
        assert await library.exists("00000001", "00000002") == (True, True)


def test_what_is_broken_here_comes_from_a_worker_that_has_it(lab) -> None:
    theirs, mine = lab.worker.directory / "models", lab.client.home / "models"
    files = {
        "best.ckpt": b"weights " * 400_000,
        "logs/training_log.csv": b"epoch\n",
        "config.yaml": b"c: 1\n",
    }
    put(theirs, 1, files=files)
    entry = put(mine, 2, files=files)  # the same content has another id here
    lab.worker.begin()
    typed(lab, "sync")
    best = entry.directory / "best.ckpt"
    best.write_bytes(b"WEIGHTS " * 400_000)
    (entry.directory / "logs" / "training_log.csv").unlink()

    assert "gpu-1" in typed(lab, "repair-model", "00000002", code=3).err  # nobody to be asked
    (done,) = typed(lab, "repair-model", "00000002", "--yes", "--json").as_(RepairDocument).models
    assert done.whole
    assert sorted((file.path, file.was, file.source) for file in done.files) == [
        ("best.ckpt", "changed", "worker:gpu-1"),
        ("logs/training_log.csv", "missing", "worker:gpu-1"),
    ]
    for name, content in files.items():
        assert (entry.directory / name).read_bytes() == content
    (trash,) = (mine / ".trash").iterdir()
    assert (trash / "best.ckpt").read_bytes().startswith(b"WEIGHTS ")
    assert not below(mine / ".incoming")
    assert typed(lab, "model-info", "00000002").out.count("changed") == 0

    # What the worker hasn't got either stays as it is, and the rest is mended.
    best.unlink()
    (entry.directory / "config.yaml").unlink()
    (theirs / "centroid_00000001" / "config.yaml").write_bytes(b"C: 1\n")
    done = typed(lab, "repair-model", "00000002", "--from-worker", "gpu-1", code=3)
    assert "config.yaml" in done.err
    assert best.read_bytes() == files["best.ckpt"]
    assert not (entry.directory / "config.yaml").exists()
    other = put(mine, 3)
    (other.directory / "best.ckpt").unlink()
    typed(lab, "repair-model", "00000003", "--from-worker", "gpu-1", code=3)


def test_a_worker_whose_library_cannot_be_read_says_so(lab) -> None:
    lab.worker.begin()
    models = lab.worker.directory / "models"
    if models.exists():
        models.rename(models.with_name("elsewhere"))
    models.write_text("a file in its place")
    done = typed(lab, "worker", "list-models", "--json", code=1)
    assert json.loads(done.out)["error"]["code"] == "no_library"
