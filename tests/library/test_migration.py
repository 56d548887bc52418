import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sleap_rtc.errors import UnknownModel
from sleap_rtc.library import manifest, merging, migration
from sleap_rtc.library.merging import Report
from sleap_rtc.library.registry import Registry
from sleap_rtc.testing.disk import Killed, WatchedDisk


@pytest.fixture
def opened(models: Path, tmp_path: Path, clock: Any) -> Iterator[Callable[[], Any]]:
    """Opens the library as a command does."""
    registries = []

    def open_one() -> tuple[Registry, tuple[Report, ...]]:
        found = migration.open_registry(models, clock=clock, index_dir=tmp_path / "index")
        registries.append(found[0])
        return found

    yield open_one
    for registry in registries:
        registry.close()


def model_files(folder: Path, content: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_text(content)
    (folder / "training_config.yaml").write_text("model_config: {}")
    (folder / "viz").mkdir()
    (folder / "viz" / "x.png").write_text("x")
    (folder / ".hidden").write_text("h")
    return folder


def client_manifest(models: Path, *entries: dict[str, Any], **more: Any) -> Path:
    models.mkdir(exist_ok=True)
    path = models / "manifest.json"
    document = {"version": "1.0", "models": {entry["id"]: entry for entry in entries}}
    path.write_text(json.dumps(document | more, indent=2))
    return path


def entry(folder: Path, id_: str = "3f2a9c01", **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "model_type": "centroid",
        "source": "local-import",
        "local_path": str(folder),
        "checkpoint_path": str(folder / "best.ckpt"),
        "imported_at": "2025-11-10T16:00:00",
    } | more


def fates(report: Report) -> dict[str, str]:
    return {each.name: each.fate for each in report.outcomes}


def test_a_folder_that_is_no_model_s_is_not_taken_for_one(
    models: Path, opened: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "id_ed25519").write_text("secret")
    client_manifest(models, entry(folder, checkpoint_path=str(folder / "id_ed25519")))
    registry, (report,) = opened()
    (outcome,) = report.outcomes
    assert "neither weights nor a config" in outcome.why
    found = registry.get(outcome.now or outcome.name).record
    assert (found.status, found.files, found.checkpoint) == ("missing", (), None)


def test_a_copied_model_gets_its_record_where_it_lies(models: Path, opened: Any) -> None:
    folder = model_files(models / "centroid_3f2a9c01")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    source = client_manifest(models, entry(folder), aliases={"fly": "3f2a9c01"})
    text = source.read_text()
    registry, (report,) = opened()
    assert fates(report) == {"3f2a9c01": "added", "fly": "added"}
    found = registry.get("fly")
    assert found.directory == folder
    assert [file.path for file in found.record.files] == [
        "best.ckpt",
        "training_config.yaml",
        "viz/x.png",
    ]
    assert (found.record.checkpoint, found.record.config) == ("best.ckpt", "training_config.yaml")
    assert registry.checkpoint_path("fly") == folder / "best.ckpt"
    assert all(path.read_bytes() == content for path, content in before.items())
    assert Path(report.source).read_text() == text
    registry.close()
    assert list(manifest.read(models / "manifest.json").models) == ["3f2a9c01"]
    assert opened()[1] == ()


def test_a_linked_folder_stays_as_it_is(models: Path, opened: Any, tmp_path: Path) -> None:
    runs = model_files(tmp_path / "runs" / "fly")
    models.mkdir()
    link = models / "centroid_3f2a9c01"
    link.symlink_to(runs)
    client_manifest(models, entry(link, original_path=str(runs), alias="fly"))
    before = sorted(runs.rglob("*"))
    registry, (report,) = opened()
    assert fates(report) == {"3f2a9c01": "added", "fly": "added"}
    found = registry.get("fly")
    assert not link.is_symlink()
    assert found.directory == link
    assert (link / "best.ckpt").readlink() == runs.resolve() / "best.ckpt"
    assert registry.checkpoint_path("fly").read_text() == "weights"
    assert sorted(runs.rglob("*")) == before
    assert (models / ".migrated" / "links" / link.name).resolve() == runs.resolve()
    trash = registry.delete("fly")
    assert trash is not None
    assert (runs / "best.ckpt").read_text() == "weights"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_workers_registry(models: Path, opened: Any, form: str) -> None:
    folder = model_files(models / "centered_instance_77aa01bc")
    model_files(models / "run-without-id")
    registry_file = models / ".registry" / f"manifest.{form}"
    registry_file.parent.mkdir()
    document = {
        "version": "1.0",
        "models": {
            "77aa01bc": {
                "id": "77aa01bc",
                "model_type": "centered_instance",
                "training_job_hash": "x",
                "run_name": "r",
                "status": "interrupted",
                "last_epoch": 4,
                "checkpoint_path": "models/centered_instance_77aa01bc/best.ckpt",
                "created_at": "2025-11-10T16:00:00",
            },
            "77aa01bd": {
                "id": "77aa01bd",
                "model_type": "centroid",
                "training_job_hash": "x",
                "status": "completed",
                "checkpoint_path": "run-without-id/best.ckpt",
                "created_at": "2025-11-11T16:00:00",
            },
        },
        "interrupted": ["77aa01bc"],
    }
    write = json.dumps if form == "json" else yaml.safe_dump
    registry_file.write_text(write(document))
    registry, (report,) = opened()
    assert fates(report) == {"77aa01bc": "added", "77aa01bd": "added"}
    (stopped,) = registry.get_interrupted()
    assert stopped.directory == folder
    assert stopped.record.interruption is not None
    assert (stopped.record.interruption.epoch, stopped.record.interruption.checkpoint) == (
        4,
        "best.ckpt",
    )
    there = registry.get("77aa01bd")
    assert there.directory == models / "centroid_77aa01bd"
    assert there.record.files[0].link == str((models / "run-without-id" / "best.ckpt").resolve())
    assert registry_file.exists()
    assert opened()[1] == ()

    later = document | {"models": document["models"] | {"77aa01be": {"model_type": "bottomup"}}}  # type: ignore[operator]
    registry_file.write_text(write(later))
    _, (again,) = opened()
    assert fates(again) == {"77aa01bc": "known", "77aa01bd": "known", "77aa01be": "added"}


def test_the_newer_of_two_worker_registries_counts(models: Path) -> None:
    folder = models / ".registry"
    folder.mkdir(parents=True)
    for age, name in ((100, "manifest.json"), (50, "manifest.yaml")):
        (folder / name).write_text("models: {}")
        os.utime(folder / name, (10**9 - age, 10**9 - age))
    assert migration.pending(models) == (folder / "manifest.yaml",)


def test_models_without_files_come_as_missing(models: Path, opened: Any, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    empty = tmp_path / "empty"
    empty.mkdir()
    dangling = model_files(tmp_path / "dangling")
    (dangling / "best.ckpt").unlink()
    (dangling / "best.ckpt").symlink_to(tmp_path / "nowhere")
    client_manifest(
        models,
        entry(tmp_path / "gone", "00000001"),
        entry(loop, "00000002"),
        entry(empty, "00000003"),
        entry(dangling, "00000004"),
        entry(models, "00000005", checkpoint_path=""),
        {"id": "00000006", "model_type": "centroid"},
        {"id": "00000007"},
        aliases={"a": "00000001", "b": "nobody", "c": 3},
    )
    registry, (report,) = opened()
    assert {each.record.status for each in registry.walk()} == {"missing"}
    assert fates(report) == {f"0000000{n}": "added" for n in range(1, 7)} | {
        "00000007": "refused",
        "a": "added",
        "b": "refused",
        "c": "refused",
    }
    assert all(each.why for each in report.outcomes if each.name.startswith("0"))
    assert registry.get("a").id == "00000001"


def test_strange_names(models: Path, opened: Any, tmp_path: Path) -> None:
    names = ("with space", 'it\'s "quoted"', "fly-🪰", "x" * 200)
    entries = [
        entry(model_files(tmp_path / name, name), f"0000000{n}", alias=name)
        for n, name in enumerate(names)
    ]
    client_manifest(models, *entries)
    registry, (report,) = opened()
    assert report.count("model", "added") == len(names)
    assert report.count("alias", "refused") == len(names)
    for n, name in enumerate(names):
        found = registry.get(f"0000000{n}")
        assert found.record.name == name
        assert (found.directory / "best.ckpt").read_text() == name


def test_a_registry_that_can_not_be_read_is_kept_and_told_once(models: Path, opened: Any) -> None:
    models.mkdir()
    (models / "manifest.json").write_text('{"version": "1.0", "models": [')
    registry, (report,) = opened()
    assert fates(report) == {"manifest.json": "refused"}
    assert Path(report.source).read_text() == '{"version": "1.0", "models": ['
    assert list(registry.walk()) == []
    assert opened()[1] == ()


def test_nothing_is_pending_in_a_new_library(models: Path, opened: Any) -> None:
    assert migration.pending(models) == ()
    assert opened()[1] == ()
    assert not models.exists()


def test_what_was_deleted_stays_deleted(models: Path, opened: Any) -> None:
    folder = model_files(models / "centroid_3f2a9c01")
    client_manifest(models, entry(folder))
    registry, _ = opened()
    registry.delete("3f2a9c01")
    client_manifest(models, entry(folder))
    _, (report,) = opened()
    assert fates(report) == {"3f2a9c01": "deleted"}
    with pytest.raises(UnknownModel):
        registry.get("3f2a9c01")


def test_a_full_disk_leaves_it_for_the_next_time(
    models: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_files(models / "centroid_3f2a9c01")
    source = client_manifest(models, entry(folder))

    def full(_: int) -> None:
        raise OSError(28, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert opened()[1] == ()
    assert source.exists()
    registry, (report,) = opened()
    assert fates(report) == {"3f2a9c01": "added"}
    assert registry.get("3f2a9c01").directory == folder


@pytest.mark.slow
def test_after_a_kill_at_any_change_it_goes_on(
    models: Path, opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = model_files(tmp_path / "runs" / "fly", "linked")
    number, finished = 0, False
    while not finished:
        model_files(models / "centroid_3f2a9c01")
        (models / "centroid_00000002").symlink_to(runs)
        client_manifest(
            models,
            entry(models / "centroid_3f2a9c01", alias="a"),
            entry(models / "centroid_00000002", "00000002", original_path=str(runs), alias="b"),
        )
        with WatchedDisk(models, kill_at=number):
            try:
                opened()
                finished = True
            except Killed:
                pass
        registry, _ = opened()
        for name, content in (("a", "weights"), ("b", "linked")):
            assert registry.checkpoint_path(name).read_text() == content
        assert {str(each.id) for each in registry.walk()} == {"3f2a9c01", "00000002"}
        assert migration.pending(models) == ()
        registry.changed = False
        models.rename(tmp_path / f"done-{number}")
        number += 1
    assert number > 20
    assert (runs / "best.ckpt").read_text() == "linked"


def test_reports_count(models: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_OUTCOMES", 1)
    told: list[int] = []
    client_manifest(models, *({"id": f"0000000{n}", "model_type": "x"} for n in range(3)))
    registry, _ = opened()
    report = Report("x")
    source = next((models / ".migrated").glob("*-manifest.json"))
    migration.take_over(
        registry,
        migration.read(source),
        report,
        source=source,
        told=lambda done, _: told.append(done),
    )
    assert report.count("model", "known") == 3
    assert told == [0, 1, 2, 3]


def test_what_the_files_tell_is_in_the_record_as_after_an_import(models: Path, opened: Any) -> None:
    folder = model_files(models / "centroid_3f2a9c01")
    rows = "epoch,train/loss,val/loss\n0,,0.5\n1,0.6,0.25\n2,0.4,0.3\n"
    (folder / "training_log.csv").write_text(rows)
    measured = {"distance_metrics": {"avg": 2.5}}
    (folder / "metrics.val.0.json").write_text(json.dumps(measured))
    config = {
        "data_config": {"skeletons": [{"nodes": [{"name": "head"}, {"name": "tail"}]}]},
        "model_config": {"head_configs": {"centroid": {"confmaps": {}}}},
        "trainer_config": {"max_epochs": 3, "optimizer": {"lr": 0.003}},
    }
    (folder / "training_config.yaml").write_text(yaml.safe_dump(config))
    known = {"metrics": {"final_val_loss": 0.31}, "training_hyperparameters": {"epochs": 4}}
    client_manifest(models, entry(folder, **known))
    registry, _ = opened()
    record = registry.get("3f2a9c01").record
    assert (record.metrics.best_val_loss, record.metrics.best_epoch) == (0.25, 1)
    assert record.metrics.epochs == 3
    assert record.metrics.evaluation["val.mean_error_px"] == 2.5
    assert record.training.engine == "sleap-nn"
    assert record.training.hyperparameters["max_epochs"] == 3
    assert record.skeleton == ("head", "tail")
    assert record.package is not None  # so that it can travel
    tiers = {file.path: file.safety for file in record.files}
    assert tiers["best.ckpt"] == "unknown"  # it is text, and no checkpoint
    assert tiers["training_log.csv"] is None
    # What the old registry said stands.
    assert record.metrics.final_val_loss == 0.31
    assert record.training.hyperparameters["epochs"] == 4
