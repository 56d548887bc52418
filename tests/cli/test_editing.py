"""Naming, describing and deleting models: what it was, what it is, and who is asked."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from sleap_rtc.cli.care_documents import UpdateDocument
from sleap_rtc.cli.model_documents import AliasesDocument, DeletedDocument, TagDocument
from sleap_rtc.domain.models import Location
from sleap_rtc.errors import Busy, UnknownModel
from sleap_rtc.library.registry import Registry


def owner(home, alias: str) -> tuple[str, ...]:
    with home.library as library:
        found = library.get_alias(alias)
    return () if found is None else found.models


# ── aliases ──────────────────────────────────────────────────────────────────


def test_an_alias_is_given(cli, home):
    model = home.model("a")
    done = cli("tag-model", model.id, "fly")
    assert (done.code, done.out) == (0, f"fly named no model; it names {model.id} now.\n")
    assert owner(home, "fly") == (model.id,)
    assert "already" in cli("tag-model", model.id[:5], "fly").out
    done = cli("tag-model", "fly", "fly-v2")
    assert f"{model.id} is no longer called fly." in done.err
    assert owner(home, "fly") == ()


@pytest.mark.parametrize("flag", ["--force", "--yes"])
def test_an_alias_is_taken_without_asking(cli, home, flag):
    one, two = home.model("a"), home.model("b")
    home.alias("fly", one.id)
    done = cli("tag-model", two.id, "fly", flag)
    assert done.out == f"fly named {one.id}; it names {two.id} now.\n"
    assert owner(home, "fly") == (two.id,)


@pytest.mark.parametrize(("answer", "taken"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_before_an_alias_is_taken_a_person_is_asked(cli, home, answer, taken):
    one, two = home.model("a"), home.model("b")
    home.alias("fly", one.id)
    done = cli("tag-model", two.id, "fly", terminal=True, stdin=answer)
    assert f"already names {one.id}" in done.err
    assert done.code == (0 if taken else 130)
    assert owner(home, "fly") == (two.id if taken else one.id,)


def test_where_nobody_can_be_asked_free_names_are_offered(cli, home):
    one, two = home.model("a"), home.model("b")
    home.alias("fly", one.id)
    done = cli("tag-model", two.id, "fly")
    assert done.code == 4
    assert "fly-v2" in done.err
    assert "--force" in done.err
    assert owner(home, "fly") == (one.id,)


def test_a_pair_has_one_alias(cli, home):
    one, two = home.model("a"), home.model("b", model_type="centered_instance")
    document = cli("tag-model", one.id, two.id, "pair", "--json").document
    assert msgspec.convert(document, TagDocument).now == (one.id, two.id)
    done = cli("tag-model", "pair", "other")
    assert done.code == 2
    assert "pair:centroid" in done.err
    done = cli("tag-model", one.id, "--remove")
    assert done.code == 2
    assert "no alias of its own" in done.err
    assert cli("tag-model", "pair", "--remove").code == 0
    assert owner(home, "pair") == ()


def test_an_alias_is_removed_by_itself_or_by_its_model(cli, home):
    model = home.model("a")
    for name in ("fly", model.id):
        home.alias("fly", model.id)
        done = cli("tag-model", name, "--remove")
        assert done.out == f"fly named {model.id}; it names no model now.\n"
        assert owner(home, "fly") == ()
    assert cli("tag-model", model.id, "--remove").code == 2
    assert cli("tag-model", "fly", "--remove").code == 3


@pytest.mark.parametrize(
    "arguments",
    [("one",), ("a", "b", "c", "d"), ("a", "b", "--remove"), ("x", "no way")],
    ids=" ".join,
)
def test_a_wrong_use_says_so(cli, home, arguments):
    done = cli("tag-model", *arguments)
    assert (done.code, done.out) == (2, "")
    assert "hint:" in done.err


def test_aliases_are_listed(cli, home):
    assert "No model has an alias" in cli("list-aliases").err
    one, two = home.model("a"), home.model("b", model_type="centered_instance")
    home.alias("pair", one.id, two.id)
    home.alias("Fly", one.id)
    done = cli("list-aliases")
    first, second = done.out.splitlines()[1:]
    assert first.split()[:3] == ["Fly", one.id, "centroid"]
    assert f"{one.id} + {two.id}" in second
    assert cli("list-aliases", "-q").out == "Fly\npair\n"
    read = msgspec.convert(cli("list-aliases", "--json").document, AliasesDocument)
    assert [alias.alias for alias in read.aliases] == ["Fly", "pair"]


# ── notes and tags ───────────────────────────────────────────────────────────


def test_notes_and_tags_are_changed(cli, home):
    model = home.model("a", tags=("night", "old"), notes="before")
    done = cli(
        *("update-model", model.id, "--notes", "after", "--add-tag", "flies"),
        *("--remove-tag", "old", "--remove-tag", "none"),
    )
    words = [" ".join(line.split()) for line in done.out.splitlines()]
    assert words == [
        model.id,
        "tags were night, old",
        "tags are flies, night",
        "notes were before",
        "notes are after",
    ]
    assert f"{model.id} had no tag 'none'" in done.err
    document = cli("update-model", model.id, "--tags", " b , a ,", "--json").document
    (read,) = msgspec.convert(document, UpdateDocument).models
    assert (read.before.tags, read.now.tags) == (("flies", "night"), ("a", "b"))
    assert cli("update-model", model.id, "--tags", "", "--notes", "").code == 0
    assert home.library.get(model.id).record.tags == ()
    assert "said so already" in cli("update-model", model.id, "--tags", "").err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--notes", "x" * 1_001),
        ("--add-tag", ""),
        ("--add-tag", "x" * 65),
        ("--add-tag", "a\nb"),
        ("--add-tag", "a,b"),
        ("--tags", ",".join(f"t{n}" for n in range(101))),
    ],
    ids=lambda found: " ".join(found)[:20],
)
def test_what_can_t_be_written_changes_nothing(cli, home, arguments):
    model = home.model("a", tags=("night",), notes="n")
    done = cli("update-model", model.id, *arguments)
    assert (done.code, done.out) == (2, "")
    assert home.library.get(model.id).record == model.record


def test_several_are_changed_and_one_that_is_not_there_does_not_keep_them(cli, home):
    one, two = home.model("a"), home.model("b", model_type="centered_instance")
    home.alias("pair", one.id, two.id)
    three = home.model("c")
    names = ["pair", "nobody", three.id]
    done = cli("update-model", *names, "--add-tag", "new", "--json")
    assert done.code == 3
    document = msgspec.convert(done.document, UpdateDocument)
    assert [each.model for each in document.models] == [one.id, two.id, three.id]
    assert [each.name for each in document.failed] == ["nobody"]
    for model in (one, two, three):
        assert home.library.get(model.id).record.tags == ("new",)
    assert "It said so already." in cli("update-model", *names[::2], "--add-tag", "new").err


# ── deleting ─────────────────────────────────────────────────────────────────


def test_a_model_is_deleted_and_its_files_stay(cli, home):
    model = home.model("a", locations=(gpu(),))
    child = home.model("b", parent=model.id)
    home.alias("fly", model.id)
    done = cli("delete-model", "fly", "--yes")
    assert done.out == "fly is deleted; its files stay\n"
    for told in ("alias fly will be free", child.id, "worker gpu-1 still has it", "--files moves"):
        assert told in done.err
    assert (model.directory / "best.ckpt").exists()
    with pytest.raises(UnknownModel):
        home.library.get(model.id)


def test_files_go_to_the_trash(cli, home):
    model = home.model("a")
    document = cli("delete-model", model.id, "--files", "--yes", "--json").document
    (deleted,) = msgspec.convert(document, DeletedDocument).models
    assert deleted.trash is not None
    assert not (model.directory / "best.ckpt").exists()


def test_a_pair_ends_with_one_of_it(cli, home):
    one, two = home.model("a"), home.model("b", model_type="centered_instance")
    home.alias("pair", one.id, two.id)
    done = cli("delete-model", "pair:centroid", "--yes")
    assert "The pair pair ends with it" in done.err
    assert home.library.get(two.id).alias is None


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("\n", False), ("", False)])
def test_a_person_is_asked(cli, home, answer, gone):
    model = home.model("a")
    done = cli("delete-model", model.id, "--files", terminal=True, stdin=answer)
    assert "Delete 1 model and" in done.err
    assert done.code == (0 if gone else 130)
    assert home.library.exists(model.id) is not gone


def test_where_nobody_can_be_asked_nothing_is_deleted(cli, home):
    model = home.model("a")
    done = cli("delete-model", model.id)
    assert done.code == 2
    assert "--yes" in done.err
    assert home.library.exists(model.id)


def test_an_unknown_one_among_several_deletes_none(cli, home, tmp_path):
    model = home.model("a")
    for other in ("nobody", tmp_path):
        assert cli("delete-model", model.id, other, "--yes").code == 3
    assert home.library.exists(model.id)


def test_one_that_cannot_be_deleted_does_not_keep_the_others(cli, home, monkeypatch):
    models = [home.model(name).id for name in "abc"]
    delete = Registry.delete

    def refuse(self, name, *, files=True):
        if name == models[1]:
            raise Busy(what="The model", by="")
        return delete(self, name, files=files)

    monkeypatch.setattr(Registry, "delete", refuse)
    done = cli("delete-model", *models, "--yes", "--json")
    assert done.code == 4
    document = msgspec.convert(done.document, DeletedDocument)
    assert [one.id for one in document.models] == [models[0], models[2]]
    assert [one.name for one in document.failed] == [models[1]]
    done = cli("delete-model", models[1], "--yes")
    assert (done.code, done.out) == (4, "")


@pytest.mark.parametrize(
    ("command", "method", "told"),
    [
        (("delete-model", "--yes"), "delete", "1 model is deleted. sleap-rtc restore-model {0} "),
        (("update-model", "--add-tag", "x"), "update", "1 model is changed, the others aren't."),
    ],
)
def test_who_interrupts_hears_what_was_done(  # noqa: PLR0917 - fixtures
    cli, home, monkeypatch, command, method, told
):
    models = [home.model(name).id for name in "ab"]
    real = getattr(Registry, method)

    def interrupt(self, name, *more, **given):
        if name == models[1]:
            raise KeyboardInterrupt
        return real(self, name, *more, **given)

    monkeypatch.setattr(Registry, method, interrupt)
    done = cli(command[0], *models, *command[1:])
    assert done.code == 130
    assert f"Interrupted. {told.format(models[0])}" in done.err


def test_quiet_prints_names_alone(cli, home):
    one, two = home.model("a"), home.model("b")
    for arguments, printed in (
        (("tag-model", one.id, "fly"), "fly"),
        (("model-info", "fly"), "fly"),
        (("compare-models", "fly", two.id), f"fly\n{two.id}"),
        (("update-model", "fly", two.id, "--add-tag", "x"), f"fly\n{two.id}"),
        (("delete-model", "fly", "--yes"), one.id),
        (("restore-model", one.id), "fly"),
        (("tag-model", "fly", "--remove"), "fly"),
    ):
        done = cli("--quiet", *arguments)
        assert (done.code, done.out, done.err) == (0, f"{printed}\n", "")


def gpu() -> Location:
    return Location(kind="worker", name="gpu-1", last_seen=datetime(2026, 3, 1, tzinfo=UTC))
