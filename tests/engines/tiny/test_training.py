"""Training and tracking in this process, on the small made data."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sleap_io as sio

from sleap_rtc.engines.tiny import checkpoint, samples, settings, track, train, words
from sleap_rtc.engines.tiny.__main__ import main
from sleap_rtc.errors import DataError, FilesMissing, InvalidConfig, InvalidLabels
from sleap_rtc.media.compare import compare
from sleap_rtc.media.readers import readers_closed
from sleap_rtc.media.synthetic import Dataset, SyntheticSpec, make_dataset


class Quiet(words.Ears):
    """Hears ``stop`` when it is told so."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self._left = stop_after

    def stop_asked(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0


def _config(head: str, *, epochs: int, scale: float = 0.25, steps: int = 20, **more: Any) -> str:
    trainer = {"max_epochs": epochs, "train_steps_per_epoch": steps, **more}
    return (
        f"data_config: {{preprocessing: {{scale: {scale}}}, validation_fraction: 0.2}}\n"
        f"model_config: {{head_configs: {{{head}: {{confmaps: {{sigma: 2.5}}}}}}}}\n"
        f"trainer_config: {trainer!r}\n".replace("True", "true")
    )


def _train(text: str, made: Dataset, folder: Path, **more: Any) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    folder.mkdir(parents=True, exist_ok=True)
    ears = more.pop("ears", Quiet())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "tell", lambda event, **f: said.append({"event": event, **f}))
        read = settings.read(text, where="c")
        train.Trainer(read, made.package, folder, **more).run(ears)
    return said


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("pair"), SyntheticSpec(labelled=30, frames=20))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = SyntheticSpec(size=(96, 96), animals=1, labelled=6, frames=3)
    return make_dataset(tmp_path_factory.mktemp("small"), spec)


@pytest.mark.slow
def test_a_top_down_pair_finds_animals_it_never_saw_labelled(pair: Dataset, tmp_path: Path) -> None:
    _train(_config("centroid", epochs=6), pair, tmp_path / "centroid")
    said = _train(
        _config("centered_instance", epochs=5, scale=1), pair, tmp_path / "centered_instance"
    )
    evaluation = said[-1]["metrics"]["evaluation"]
    assert evaluation["val.mean_error_px"] < 2
    output = tmp_path / "predictions.slp"
    with readers_closed():
        track.track(
            [tmp_path / "centroid", tmp_path / "centered_instance"],
            pair.video,
            output,
            linked=True,
            provenance={"models": "3f2a9c01, 7b1e0d42"},
        )
    found = compare(output, pair.truth)
    assert found.found > 0.9
    assert found.mean_error_px is not None
    assert found.mean_error_px < 2
    labels = sio.load_slp(str(output), open_videos=False)
    assert labels.provenance["models"] == "3f2a9c01, 7b1e0d42"
    assert labels.provenance["engine"] == "tiny"
    assert 2 <= len(labels.tracks) <= 4, "two animals keep their identities"


def test_going_on_ends_as_without_an_interruption(small: Dataset, tmp_path: Path) -> None:
    whole = _train(_config("single_instance", epochs=3, steps=3), small, tmp_path / "whole")
    _train(_config("single_instance", epochs=2, steps=3), small, tmp_path / "a")
    more = {"resume_from": tmp_path / "a"}
    said = _train(_config("single_instance", epochs=3, steps=3), small, tmp_path / "b", **more)
    assert [s["epoch"] for s in said if s["event"] == "epoch"] == [2]
    assert said[0]["first_epoch"] == 2
    for name in ("last.npz", "best.npz"):
        one = checkpoint.load(tmp_path / "whole" / name)
        other = checkpoint.load(tmp_path / "b" / name)
        assert one.about == other.about
        for key, value in one.weights.items():
            np.testing.assert_array_equal(value, other.weights[key])
    logs = [(tmp_path / n / "training_log.csv").read_text() for n in ("whole", "b")]
    assert logs[0] == logs[1]
    assert whole[-1]["metrics"]["best_val_loss"] == said[-1]["metrics"]["best_val_loss"]


def test_stopped_in_an_epoch_the_epochs_before_stay(small: Dataset, tmp_path: Path) -> None:
    text = _config("single_instance", epochs=50, steps=3)
    said = _train(text, small, tmp_path, ears=Quiet(stop_after=5))
    written = [s["epochs"] for s in said if s["event"] == "checkpoint"]
    assert written == [1]
    assert said[-1]["event"] == "result"
    assert said[-1]["metrics"]["epochs"] == 1
    with (tmp_path / "training_log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0"]


def test_it_ends_when_nothing_improves(small: Dataset, tmp_path: Path) -> None:
    stopping = {"stop_training_on_plateau": True, "patience": 0, "min_delta": 1000.0}
    text = _config("single_instance", epochs=50, steps=1, early_stopping=stopping)
    said = _train(text, small, tmp_path)
    assert said[-1]["metrics"]["epochs"] == 2


def test_going_on_with_another_network_is_refused(small: Dataset, tmp_path: Path) -> None:
    _train(_config("single_instance", epochs=1, steps=1), small, tmp_path / "a")
    text = _config("single_instance", epochs=2, steps=1, scale=0.5)
    with pytest.raises(InvalidConfig, match="another factor"):
        _train(text, small, tmp_path / "b", resume_from=tmp_path / "a")


def test_a_loss_that_is_no_number_is_said(small: Dataset, tmp_path: Path) -> None:
    read = settings.read(_config("single_instance", epochs=1), where="c")
    trainer = train.Trainer(read, small.package, tmp_path)
    trainer._network.weights["maps.w"][:] = np.inf
    with np.errstate(all="ignore"), pytest.raises(InvalidConfig, match="no number any more") as e:
        trainer.run(Quiet())
    assert "smaller learning rate" in e.value.hint_text


def test_an_anchor_that_is_not_there_is_said(small: Dataset, tmp_path: Path) -> None:
    text = _config("centroid", epochs=1).replace("2.5}", "2.5, anchor_part: nose}")
    with pytest.raises(InvalidConfig, match="no point 'nose'"):
        _train(text, small, tmp_path)


def test_labels_without_anything_to_learn_from(small: Dataset, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.slp"
    wrong.write_bytes(b"no label file")
    with pytest.raises(InvalidLabels, match="can't be read"):
        samples.read_frames(wrong)
    with pytest.raises(FilesMissing):
        samples.read_frames(tmp_path / "absent.slp")
    with readers_closed():
        labels = sio.load_slp(str(small.labels), open_videos=False)
        for frame in labels:
            frame.instances = []
        labels.save(str(tmp_path / "empty.slp"), embed=False, verbose=False)
        with pytest.raises(InvalidLabels, match="no labelled animal"):
            samples.read_frames(tmp_path / "empty.slp")


def test_labels_that_name_their_video(small: Dataset) -> None:
    with readers_closed():
        one, other = samples.read_frames(small.package), samples.read_frames(small.labels)
    assert one.nodes == other.nodes == ("head", "body", "tail")
    for a, b in zip(one.frames, other.frames, strict=True):
        np.testing.assert_array_equal(a.animals, b.animals)
        np.testing.assert_allclose(a.image, b.image, atol=0.02)


def test_models_that_do_not_go_together(small: Dataset, tmp_path: Path) -> None:
    for head in ("centroid", "centered_instance", "single_instance"):
        _train(_config(head, epochs=1, steps=1), small, tmp_path / head)
    for names, why in (
        (["centered_instance"], "needs a centroid model"),
        (["centroid", "single_instance"], "don't go together"),
        (["centroid", "centroid"], "two of a kind"),
    ):
        with pytest.raises(InvalidConfig, match=why):
            track.track([tmp_path / n for n in names], small.video, tmp_path / "p.slp")
    with pytest.raises(FilesMissing):
        track.track([tmp_path / "centroid"], tmp_path / "absent.mp4", tmp_path / "p.slp")
    text = tmp_path / "video.mp4"
    text.write_text("no video")
    with pytest.raises(DataError, match="no video"), readers_closed():
        track.track([tmp_path / "centroid"], text, tmp_path / "p.slp")


def test_the_program_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("a: [")
    arguments = ["train", "--config", str(config), "--labels", "l", "--directory", str(tmp_path)]
    assert main(arguments) == 2
    assert '"event": "error", "code": "invalid_config"' in capsys.readouterr().out


def test_coordinates_go_there_and_back() -> None:
    points = np.array([[0.0, 0.0], [10.5, 3.25]])
    np.testing.assert_allclose(samples.from_map(samples.to_map(points, 3), 3), points, atol=1e-9)
    image = np.zeros((8, 8), np.float32)
    image[2:4, 4:6] = 1
    small = samples.shrink(image, 2)
    assert small[1, 2] == 1
    np.testing.assert_allclose(samples.to_map(np.array([4.5, 2.5]), 1), [2.0, 1.0])


def test_what_is_not_labelled_makes_no_bump() -> None:
    points = np.array([[[2.0, 3.0]], [[np.nan, np.nan]]])
    maps = samples.heatmaps(points, (8, 8), 1.0)
    assert np.unravel_index(maps[..., 0].argmax(), (8, 8)) == (3, 2)
    assert maps[3, 2, 0] == 1
    assert not maps[..., 1].any()


def test_a_crop_goes_on_beyond_the_border() -> None:
    image = np.arange(16, dtype=float).reshape(4, 4)
    cut, corner = samples.crop(image, np.array([0.0, 0.0]), 4)
    assert cut.shape == (4, 4)
    assert corner.tolist() == [-2, -2]
    assert cut[0, 0] == image[0, 0]
    assert cut[-1, -1] == image[1, 1]


@pytest.mark.parametrize("verb", ["train", "track"])
def test_a_folder_that_is_not_there_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    away = str(tmp_path / "away" / "file")
    given = {
        "train": ["--config", away, "--labels", away, "--directory", away],
        "track": ["--model", away, "--video", away, "--output", away],
    }
    assert main([verb, *given[verb]]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["event"] == "error"
    assert told["code"] in ("not_found", "files_missing")
    assert "Traceback" not in told["message"]
