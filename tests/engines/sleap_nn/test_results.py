from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.engines.sleap_nn import results


def _run(attempt: Path, rows: dict[int, float], *, best: str, last: int | None) -> Path:
    run = attempt / "run" / attempt.name
    run.mkdir(parents=True)
    lines = [f"{epoch},{'' if epoch == 0 else loss * 10},{loss}" for epoch, loss in rows.items()]
    (run / "training_log.csv").write_text("epoch,train/loss,val/loss\n" + "\n".join(lines) + "\n")
    (run / "best.ckpt").write_text(best)
    (run / "training_config.yaml").write_text("a: 1\n")
    if last is not None:
        _checkpoint(run / "last.ckpt", last)
    return attempt


def _checkpoint(path: Path, epoch: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        content = {"epoch": epoch, "global_step": 10, "state_dict": {}}
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))


def test_attempts_are_put_together(tmp_path: Path) -> None:
    first = _run(tmp_path / "a", {0: 0.5, 1: 0.2, 2: 0.3}, best="best of a", last=1)
    assert results.carry(first, tmp_path / "b") == tmp_path / "b" / "carried" / "last.ckpt"
    second = _run(tmp_path / "b", {2: 0.4, 3: 0.25}, best="best of b", last=3)
    names = results.assemble(second, "b", {2: 7.0, 3: 8.0}, with_last=True)

    assert names[:2] == ("best.ckpt", "last.ckpt")
    assert (second / "best.ckpt").read_text() == "best of a", "0.2 is lower than 0.25"
    rows = results.read_log(second / "training_log.csv")
    assert {epoch: row["val/loss"] for epoch, row in rows.items()} == {
        0: "0.5",
        1: "0.2",
        2: "0.4",
        3: "0.25",
    }
    # Told losses where they were told, else the trainer's own, moved to where they belong.
    assert [rows[e].get("train/loss") for e in range(4)] == ["2.0", "3.0", "7.0", "8.0"]
    metrics = results.metrics(second, 4)
    assert (metrics.best_val_loss, metrics.best_epoch) == (0.2, 1)
    assert (metrics.final_val_loss, metrics.final_train_loss, metrics.epochs) == (0.25, 8.0, 4)


def test_a_better_later_attempt_wins(tmp_path: Path) -> None:
    first = _run(tmp_path / "a", {0: 0.5}, best="best of a", last=0)
    results.carry(first, tmp_path / "b")
    second = _run(tmp_path / "b", {1: 0.1}, best="best of b", last=1)
    assert results.best_checkpoint(second) == second / "run" / "b" / "best.ckpt"


def test_an_attempt_that_did_nothing_still_stands_for_the_one_before(tmp_path: Path) -> None:
    first = _run(tmp_path / "a", {0: 0.5, 1: 0.4}, best="best of a", last=1)
    results.carry(first, tmp_path / "b")
    names = results.assemble(tmp_path / "b", "b", {}, with_last=True)
    assert set(names) == {"best.ckpt", "last.ckpt", "training_log.csv"}
    assert results.carry(tmp_path / "b", tmp_path / "c") is not None
    assert set(results.stitched(tmp_path / "c", {})) == {0, 1}


def test_a_models_own_directory_can_be_gone_on_from(tmp_path: Path) -> None:
    attempt = _run(tmp_path / "a", {0: 0.5, 1: 0.4}, best="b", last=1)
    names = results.assemble(attempt, "a", {0: 1.0, 1: 2.0}, with_last=True)
    model = tmp_path / "model"
    model.mkdir()
    for name in names:
        (model / name).write_bytes((attempt / name).read_bytes())
    start = results.carry(model, tmp_path / "b")
    assert start is not None
    assert results.epochs_in(start) == 2
    assert results.stitched(tmp_path / "b", {})[0]["train/loss"] == "1.0"


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert results.carry(tmp_path / "absent", tmp_path / "b") is None
    assert results.assemble(tmp_path / "b", "b", {}, with_last=True) == ()
    assert results.metrics(tmp_path / "b", None).best_val_loss is None


def test_epochs_are_read_without_unpickling(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"trap": Trap(), "epoch": 6}, protocol=2))
    assert results.epochs_in(path) == 7
    assert not (tmp_path / "sprung").exists()
    assert results.epochs_in(tmp_path / "absent.ckpt") is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_a_damaged_checkpoint_has_no_epochs(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "damaged.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
    assert results.epochs_in(path) is None or b"epoch" in data
    path.write_bytes(data)
    assert results.epochs_in(path) is None


def test_what_was_measured_is_found(tmp_path: Path) -> None:
    plain = {"distance_metrics": {"avg": 2.5, "p50": None}, "mOKS": {"mOKS": 0.5}, "x": 3}
    (tmp_path / "metrics.val.0.json").write_text(json.dumps(plain))
    (tmp_path / "metrics.train.0.json").write_text("{ NaN")
    assert results.metrics(tmp_path, 1).evaluation == {"val.mean_error_px": 2.5, "val.mOKS": 0.5}


def test_a_damaged_log_gives_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"epoch,val/loss\n0,0.5\nnan,1\n-3,1\nx,\xff\n1,inf\n2")
    rows = results.read_log(path)
    assert set(rows) == {0, 1, 2}
    assert results.lowest(rows) == (0, 0.5)
