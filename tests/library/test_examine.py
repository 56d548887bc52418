from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.library import chain, manifest
from sleap_rtc.library.aliases import Alias
from sleap_rtc.library.examine import Finding, examine
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


def found(registry: Registry) -> set[tuple[str, str]]:
    return {(each.kind, each.name) for each in examine(registry).findings}


def name_behind_its_back(registry: Registry, clock: Any, name: str, *models: str, at: int) -> None:
    """An alias as a crash, or two processes at once, may leave it."""
    folder = registry.models_dir / ".aliases" / name
    folder.mkdir(parents=True)
    alias = Alias(name=name, models=models, sequence=at, changed_at=clock())  # type: ignore[arg-type]
    assert chain.append(folder, 0, manifest.values.encode(alias))


def revision(directory: Path, number: int) -> Path:
    return directory / ".record" / f"{number:08d}.json"


def test_a_good_library(registry: Registry, record_of: RecordOf) -> None:
    assert examine(registry).models == 0
    a = registry.register(record_of("a"))
    b = registry.register(record_of("b", "centered_instance"))
    registry.set_alias("fly", a.id)
    registry.set_alias("bee", a.id)
    registry.set_alias("pair", a.id, b.id)
    registry.delete(registry.register(record_of("c")).id)
    seen = examine(registry)
    assert (seen.findings, seen.models, seen.whole) == ((), 3, True)


def test_damaged_records(registry: Registry, record_of: RecordOf) -> None:
    older, unreadable, newer = (registry.register(record_of(name)) for name in "abc")
    registry.update(older.id, lambda old: replace(old, notes="x"))
    revision(older.directory, 2).write_text("{")
    revision(unreadable.directory, 1).write_text("")
    revision(newer.directory, 1).write_text('{"format": "9.0"}')
    assert found(registry) == {
        ("older", older.id),
        ("unreadable", unreadable.id),
        ("newer", newer.id),
    }
    (told,) = (each for each in examine(registry).findings if each.kind == "older")
    assert told.why == "revision 2 can't be read; 1 stands"
    assert registry.get(older.id).record.notes == ""


def test_of_two_aliases_the_later_one_stays(
    registry: Registry, record_of: RecordOf, clock: Any
) -> None:
    model = registry.register(record_of()).id
    registry.set_alias("fly", model)
    name_behind_its_back(registry, clock, "old", model, at=0)
    (told,) = examine(registry).findings
    assert told == Finding(
        kind="second-alias", name="old", why=f"model {model} is called fly, which is later"
    )
    registry.remove_alias("old")
    assert examine(registry).findings == ()
    assert registry.get(model).alias == "fly"


def test_aliases_to_nothing(registry: Registry, record_of: RecordOf, clock: Any) -> None:
    model = registry.register(record_of()).id
    name_behind_its_back(registry, clock, "nobody", "ffffffff", at=1)
    name_behind_its_back(registry, clock, "half", model, "ffffffff", at=1)
    findings = examine(registry).findings
    assert {(each.kind, each.name) for each in findings} == {
        ("alias-to-nothing", "nobody"),
        ("alias-to-nothing", "half"),
    }
    assert {each.why for each in findings} == {"ffffffff is not here"}
    for each in findings:
        registry.remove_alias(each.name)
    assert examine(registry).findings == ()


def test_an_alias_that_can_not_be_read(registry: Registry, record_of: RecordOf) -> None:
    registry.set_alias("fly", registry.register(record_of()).id)
    (registry.models_dir / ".aliases" / "fly" / "00000001.json").write_text("x")
    findings = examine(registry).findings
    assert [(each.kind, each.name) for each in findings] == [("alias-unreadable", "fly")]


def test_there_may_be_too_little_time(
    registry: Registry, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        registry.register(record_of(str(n)))
    seen = examine(registry, seconds=-1)
    assert (seen.models, seen.whole) == (0, False)
    assert examine(registry, seconds=60).whole


def test_aliases_leave_time_for_models(
    registry: Registry, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def read(*_: object, **__: object) -> None:
        now[0] += 4.0

    monkeypatch.setattr("sleap_rtc.library.examine.time.monotonic", lambda: now[0])
    for n in range(3):
        registry.set_alias(f"fly-{n}", registry.register(record_of(str(n))).id)
    monkeypatch.setattr(registry, "exists", lambda _: (read(), True)[1])
    seen = examine(registry, seconds=6)
    assert (seen.models, seen.whole) == (3, False)


def test_files_that_are_gone_are_counted_without_reading_any(
    registry: Registry, arrive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, gone, cut, told = (arrive(name) for name in ("whole", "gone", "cut", "told"))
    deleted = arrive("deleted")
    registry.delete(deleted.id)
    (gone.directory / "best.ckpt").unlink()
    (gone.directory / "sub" / "config").unlink()
    (cut.directory / "best.ckpt").write_text("w")
    registry.update(told.id, lambda old: replace(old, status="missing"))
    (told.directory / "best.ckpt").unlink()
    monkeypatch.setattr("sleap_rtc.library.checking.hash_open", None)
    findings = {each.name: each for each in examine(registry).findings}
    assert findings.keys() == {gone.id, cut.id}
    assert (findings[gone.id].kind, findings[gone.id].files) == ("files", 2)
    assert (findings[cut.id].kind, findings[cut.id].files) == ("files", 1)
    assert whole.id not in findings


def test_links_that_lead_nowhere_are_told_apart(
    registry: Registry, record_of: RecordOf, tmp_path: Path
) -> None:
    theirs = tmp_path / "best.ckpt"
    theirs.write_text("weights")
    folder = registry.claims.new_folder()
    (folder / "best.ckpt").symlink_to(theirs)
    digest = blake3(b"weights").hexdigest()
    file = ModelFile(path="best.ckpt", size=7, blake3=digest, link=str(theirs.resolve()))
    model = registry.place(folder, record_of(files=(file,)), links=True).id
    assert found(registry) == set()
    theirs.unlink()
    assert found(registry) == {("broken-links", model)}
