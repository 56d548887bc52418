from __future__ import annotations

import json
import zipfile

import pytest

from sleap_rtc.domain.models import Interruption, Training

CONFIG = """
model_config:
  backbone_config: {{unet: {{filters: 8}}}}
  head_configs: {{{head}: {{confmaps: {{sigma: 2.5}}}}}}
trainer_config: {{max_epochs: 2}}
"""


def test_without_a_room(cli, tmp_path):
    done = cli("train", tmp_path / "a.slp", "-c", tmp_path / "c.yaml", "--yes")
    assert done.code == 3
    assert "sleap-rtc room join LINK" in done.err


@pytest.mark.parametrize(
    ("alias", "code"), [("a b", 2), ("-x", 2), ("latest", 2), ("flies", 4)], ids=str
)
def test_a_name_that_cannot_be_given_is_refused_before_anything_is_sent(cli, home, alias, code):
    home.alias("flies", home.model().id)
    done = cli("train", "a.slp", "-c", "c.yaml", "--yes", f"--alias={alias}")
    assert done.code == code
    if code == 4:
        assert "Choose another --alias." in done.err


def test_one_name_for_three_models(cli):
    configs = ("-c", "a.yaml", "-c", "b.yaml", "-c", "c.yaml")
    done = cli("train", "a.slp", *configs, "--yes", "--alias", "flies")
    assert done.code == 2
    assert "top-down pair" in done.err


def test_going_on_with_what_cannot_go_on(cli, home):
    assert cli("train", "--resume", "none").code == 3
    done_model = home.model("a", training=Training(engine="tiny", job="a-job"))
    done = cli("train", "--resume", done_model.id)
    assert done.code == 4
    assert "is completed" in done.err
    foreign = home.model("b", files=False, status="imported")
    assert "wasn't trained by a job" in cli("train", "--resume", foreign.id).err
    halted = home.model(
        "c",
        files=False,
        status="interrupted",
        interruption=Interruption(epoch=1),
        training=Training(engine="tiny", job="01900000-0000-7000-8000-000000000000"),
    )
    done = cli("train", "--resume", halted.id)
    assert done.code == 3
    assert "There is no job" in done.err


def test_going_on_with_a_pair_means_the_half_that_was_interrupted(cli, home):
    first = home.model("a", training=Training(engine="tiny", job="one"))
    second = home.model(
        "b",
        model_type="centered_instance",
        files=False,
        status="interrupted",
        interruption=Interruption(epoch=1),
        training=Training(engine="tiny", job="01900000-0000-7000-8000-00000000beef"),
    )
    home.alias("flies", first.id, second.id)
    done = cli("train", "--resume", "flies")
    assert done.code == 3
    assert "00000000beef" in done.err


@pytest.mark.slow
class TestInARoom:
    @pytest.fixture(autouse=True)
    def room(self, host, cli):
        cli("login", host.url, "--code", host.code)
        cli("room", "create", "lab")

    def test_files_are_looked_at_before_somebody_is_asked(self, cli, dataset, config, tmp_path):
        """Off a terminal nobody is; but what is wrong with the files comes first."""
        for labels, given, said in (
            (tmp_path / "none.slp", config, "there is no such file"),
            (dataset, tmp_path / "none.yaml", "hint: A training configuration is"),
            (dataset, config, "Add --yes"),
        ):
            done = cli("train", labels, "-c", given, "--engine", "tiny")
            assert done.code == 2
            assert said in done.err
            assert ("Add --yes" in said) == ("Nobody can be asked" in done.err)

    def test_a_zip_whose_configurations_are_too_many_for_one_name(self, cli, dataset, tmp_path):
        path = tmp_path / "a.training_job.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(dataset, "labels.pkg.slp")
            jobs = []
            for head in ("centroid", "centered_instance", "single_instance"):
                archive.writestr(f"{head}.yaml", CONFIG.format(head=head))
                jobs.append(f"- {{cfg: {head}.yaml, train_labels: labels.pkg.slp}}")
            archive.writestr("jobs.yaml", "\n".join(("training:", *jobs)))
        done = cli("train", path, "--engine", "tiny", "--yes", "--alias", "flies")
        assert done.code == 2
        assert "top-down pair" in done.err

    def test_labels_that_are_none(self, cli, tmp_path):
        labels = tmp_path / "a.slp"
        labels.write_text("no labels")
        done = cli("train", labels, "-c", tmp_path / "c.yaml", "--yes", "--json")
        assert done.code == 2
        assert done.document["error"]["code"] == "invalid_labels"
        assert "Traceback" not in done.err

    def test_nobody_to_train(self, cli, dataset, config):
        done = cli("train", dataset, "-c", config, "--engine", "tiny", "--yes")
        assert done.code == 3
        assert "sleap-rtc worker --room" in done.err

    def test_a_configuration_that_is_none(self, cli, dataset, tmp_path):
        config = tmp_path / "c.yaml"
        config.write_text(json.dumps({"trainer_config": {}}))
        done = cli("train", dataset, "-c", config, "--engine", "tiny", "--yes")
        assert done.code == 2
        assert str(config) in done.err

    def test_an_engine_that_there_is_not(self, cli, dataset, config):
        done = cli("train", dataset, "-c", config, "--engine", "gigantic", "--yes")
        assert done.code == 1
        assert "gigantic" in done.err

    def test_a_person_chooses_among_workers(self, cli, start, dataset, config, tmp_path):
        for name in ("one", "two"):
            link = cli("room", "invite", "--role", "worker").out.strip()
            where = ("--room", link, "--name", name, "--dir", tmp_path / name, "--json")
            start(tmp_path / "machine", "worker", *where).first_document()
        done = cli(
            *("train", dataset, "-c", config, "--engine", "tiny"),
            terminal=True,
            stdin="nobody\ntwo\nn\n",
            environment={"NO_COLOR": "1"},
        )
        assert done.code == 130
        assert done.err.count("Which worker? [one]") == 2
        assert "To       two: " in done.err
        assert "Sent     2 files" in done.err
        assert "Nothing was sent." in done.err
        assert cli("jobs", "-q").out == ""
