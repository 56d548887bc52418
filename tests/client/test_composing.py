"""From labels and configurations to a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.client.composing import Located, compose_tracking, compose_training
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import InvalidConfig, InvalidLabels, NotFound, UsageError
from sleap_rtc.jobs.spec import ModelRef, TrainSpec

ROOM = "a" * 32
CONFIG = """
model_config:
  backbone_config: {{unet: {{filters: 8}}}}
  head_configs: {{{head}: {{confmaps: {{sigma: 2.5}}}}}}
trainer_config: {{max_epochs: 2{more}}}
"""


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    synthetic = pytest.importorskip("sleap_rtc.media.synthetic", reason="needs the extra media")
    spec = synthetic.SyntheticSpec(size=(64, 64), animals=1, labelled=2, frames=1)
    return synthetic.make_dataset(tmp_path_factory.mktemp("made") / "data", spec).package


@pytest.fixture
def config(tmp_path: Path):
    def make(head: str, more: str = "") -> Path:
        path = tmp_path / f"{head}.yaml"
        path.write_text(CONFIG.format(head=head, more=more))
        return path

    return make


def compose(labels: Path, configs: list[Path], **more):
    return compose_training(labels, configs, engine="tiny", room=ROOM, **more)


def test_labels_and_configurations_become_one_package(labels, config):
    made = compose(labels, [config("centroid"), config("centered_instance", ", run_name: mine")])
    work = made.spec.work
    assert isinstance(work, TrainSpec)
    assert [s.model_type for s in work.stages] == ["centroid", "centered_instance"]
    assert [s.run_name for s in work.stages] == ["labels.centroid", "mine"]
    paths = {entry.path for entry in made.packed.package.files}
    assert paths == {
        "labels/labels.pkg.slp",
        "configs/0/centroid.yaml",
        "configs/1/centered_instance.yaml",
    }
    assert made.spec.inputs.id == made.packed.package.id
    assert work.dataset_hash == made.packed.file_hashes["labels/labels.pkg.slp"]
    assert made.labels is not None
    assert made.labels.frames == 2


def test_each_job_has_an_id_of_its_own(labels, config):
    one, two = (compose(labels, [config("centroid")]).spec for _ in range(2))
    assert one.id != two.id
    assert one.inputs == two.inputs


def test_labels_that_name_their_video_bring_it_along(labels, config):
    made = compose(labels.with_name("labels.slp"), [config("centroid")])
    assert {"labels/labels.slp", "labels/labelled.mp4"} <= set(made.files)


def test_labels_without_their_video_are_refused(labels, config, tmp_path):
    alone = tmp_path / "labels.slp"
    alone.write_bytes(labels.with_name("labels.slp").read_bytes())
    with pytest.raises(InvalidLabels, match=r"labelled\.mp4"):
        compose(alone, [config("centroid")])


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("gone.slp", None, "no such file"),
        ("notes.txt", b"hello", "doesn't end in"),
        ("fake.slp", b"hello", "not a usable label file"),
    ],
)
def test_what_is_no_label_file_is_refused(config, tmp_path, name, content, why):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidLabels, match=why):
        compose(path, [config("centroid")])


def test_configurations_are_needed_and_each_head_only_once(labels, config):
    with pytest.raises(UsageError, match="needs a configuration"):
        compose(labels, [])
    with pytest.raises(UsageError, match="Two of the configurations train a centroid"):
        compose(labels, [config("centroid"), config("centroid")])


def test_a_configuration_that_the_worker_would_refuse_is_refused_here(labels, config):
    path = config("centroid", ", resume_ckpt_path: /etc/passwd")
    with pytest.raises(InvalidConfig, match=r"centroid\.yaml: trainer_config\.resume_ckpt_path"):
        compose_training(labels, [path], engine="sleap-nn", room=ROOM)


def test_a_configuration_that_is_no_file_is_named(labels, tmp_path):
    with pytest.raises(InvalidConfig, match=r"none\.yaml: there is no such file"):
        compose(labels, [tmp_path / "none.yaml"])
    with pytest.raises(InvalidConfig, match="can't be read"):
        compose(labels, [tmp_path])


def located(engine: str, offered: PackageRef | None = None) -> Located:
    model = ModelRef(id="0a1b2c3d", package="1" * 64, offered=offered)
    return Located(ref=model, label="flies", model_type="centroid", engine=engine)


def test_videos_become_a_job_for_the_engine_that_trained(tmp_path):
    video = tmp_path / "day 1.mp4"
    video.write_bytes(b"frames")
    made = compose_tracking([video], [located("tiny")], room=ROOM, frames=(0, 9))
    assert made.spec.engine == "tiny"
    assert made.spec.work.videos == ("videos/0/day 1.mp4",)
    assert made.spec.work.models[0].package == "1" * 64
    assert made.offered == ()


def test_a_model_that_the_worker_may_lack_is_offered_with_the_job(tmp_path):
    video = tmp_path / "v.mp4"
    video.write_bytes(b"frames")
    package = PackageRef(id="1" * 64, size=7, files=2, listing=90)
    made = compose_tracking([video], [located("tiny", package)], room=ROOM)
    assert made.offered == ("0a1b2c3d",)
    assert made.spec.offered == (made.spec.inputs, package)


def test_tracking_needs_the_video_and_models_of_one_engine(tmp_path):
    with pytest.raises(NotFound, match=r"no video .*gone\.mp4"):
        compose_tracking([tmp_path / "gone.mp4"], [located("tiny")], room=ROOM)
    video = tmp_path / "v.mp4"
    video.write_bytes(b"frames")
    with pytest.raises(UsageError, match="can't run together"):
        compose_tracking([video], [located("tiny"), located("sleap-nn")], room=ROOM)
