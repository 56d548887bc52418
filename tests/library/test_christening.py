import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.library import christening, marks, merging
from sleap_rtc.library.merging import Report
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]


@pytest.fixture
def ids(registry: Registry, record_of: RecordOf) -> list[str]:
    return [registry.register(record_of(f"m{n}")).id for n in range(12)]


@pytest.fixture
def report(ids: list[str]) -> Report:
    """As of an import that took all of them in."""
    made = Report("elsewhere")
    made.ids = {model: model for model in ids}  # type: ignore[misc]
    return made


def plain(ids: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    return [(f"Fly-{n}", (model,)) for n, model in enumerate(ids)]


def fates(report: Report) -> dict[str, str]:
    return {each.name: each.fate for each in report.outcomes}


def test_many_names_are_given_with_two_syncs_and_one_mark(
    registry: Registry, ids: list[str], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(registry.list().entries) == 12
    before = marks.names(registry.models_dir)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    merging.name_models(registry, report, plain(ids))
    assert synced == []
    assert set(fates(report).values()) == {"added"}
    new = marks.names(registry.models_dir) - before
    assert [name[17:] for name in new] == [marks.ALL]
    for n, model in enumerate(ids):
        alias = registry.get_alias(f"Fly-{n}")
        assert alias is not None
        assert (alias.models, alias.sequence) == ((model,), 1)
        assert registry.get(model).alias == f"Fly-{n}"
        folder = registry.models_dir / ".aliases" / f"fly-{n}"
        assert [path.name for path in folder.iterdir()] == ["00000001.json"]
    assert {entry.alias for entry in registry.list().entries} == {f"Fly-{n}" for n in range(12)}
    registry.set_alias("other", ids[0])  # a name that was given so gives way like any other
    assert registry.get_alias("Fly-0") is None


def test_whatever_is_not_plain_goes_by_the_usual_rules(
    registry: Registry, ids: list[str], report: Report, record_of: RecordOf
) -> None:
    pair = registry.register(record_of("p", "centered_instance")).id
    report.ids[pair] = pair
    registry.set_alias("taken", ids[0])
    registry.set_alias("mine", ids[1])
    registry.delete(ids[2])
    wanted = [
        *plain(ids[3:]),
        ("Taken", (ids[3],)),  # differs by case from one that is there
        ("second", (ids[1],)),  # the model is called otherwise here
        ("mine", (ids[1],)),
        ("gone", (ids[2],)),
        ("again", (ids[4],)),  # it was named a moment before
        ("FLY-0", (ids[5],)),
        ("top-down", (ids[6], pair)),
        ("no-pair", (ids[6], ids[7])),
        ("nobody", ("ffffffff",)),
        ("all", (ids[8],)),
    ]
    merging.name_models(registry, report, wanted)  # type: ignore[arg-type]
    assert fates(report) == {
        **{f"Fly-{n}": "added" for n in range(9)},
        **dict.fromkeys(("Taken", "second", "again", "FLY-0"), "taken"),
        **dict.fromkeys(("gone", "no-pair", "nobody", "all"), "refused"),
        "mine": "known",
        "top-down": "added",
    }
    alias = registry.get_alias("top-down")
    assert alias is not None
    assert alias.models == (ids[6], pair)
    merging.name_models(registry, report, plain(ids[3:]))
    assert {each.fate for each in report.outcomes[-9:]} == {"known"}


def test_a_pair_is_plain_too(
    registry: Registry, ids: list[str], report: Report, record_of: RecordOf
) -> None:
    pair = registry.register(record_of("p", "centered_instance")).id
    report.ids[pair] = pair
    wanted = [("both", (ids[0], pair)), *plain(ids[1:])]
    merging.name_models(registry, report, wanted)  # type: ignore[arg-type]
    assert set(fates(report).values()) == {"added"}
    assert registry.get(pair).alias == "both:centered_instance"


@pytest.mark.parametrize("few", [True, False])
def test_a_few_names_or_without_such_a_sync_each_is_given_by_itself(
    registry: Registry,
    ids: list[str],
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    few: bool,
) -> None:
    if not few:
        monkeypatch.setattr(christening, "sync_file_system", lambda _: False)
    merging.name_models(registry, report, plain(ids[:3] if few else ids))
    assert set(fates(report).values()) == {"added"}
    assert not [name for name in marks.names(registry.models_dir) if name.endswith(marks.ALL)]


def test_an_index_that_read_a_model_before_its_name_came_reads_it_again(
    registry: Registry,
    open_registry: Any,
    ids: list[str],
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = open_registry("theirs")
    real = christening._give

    def late(ready: Any) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(theirs._index, "_marks_stamp", 0)
            theirs._index._look(theirs._index._open(theirs._index._current()), lambda *_: None)
        return real(ready)

    assert len(theirs.list().entries) == 12
    monkeypatch.setattr(christening, "_give", late)
    merging.name_models(registry, report, plain(ids))
    assert {entry.alias for entry in theirs.list().entries} == {f"Fly-{n}" for n in range(12)}


def test_a_name_that_another_gave_meanwhile_is_theirs(
    registry: Registry, ids: list[str], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = christening.sync_file_system
    times: list[int] = []

    def late(fd: int) -> bool:
        times.append(fd)
        if len(times) == 2:  # all is prepared
            registry.set_alias("fly-7", ids[0])
        return real(fd)

    monkeypatch.setattr(christening, "sync_file_system", late)
    merging.name_models(registry, report, plain(ids))
    assert fates(report) == {f"Fly-{n}": "added" for n in range(12)} | {"Fly-7": "taken"}
    alias = registry.get_alias("fly-7")
    assert alias is not None
    assert alias.models == (ids[0],)
    assert not list((registry.models_dir / ".aliases").glob("*/.tmp-*"))


def test_a_full_disk_is_said_and_no_half_name_stays(
    registry: Registry, ids: list[str], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[int] = []

    def full(fd: int) -> bool:
        times.append(fd)
        if len(times) == 2:
            raise OSError(28, "full")
        return True

    monkeypatch.setattr(christening, "sync_file_system", full)
    with pytest.raises(OutOfSpace):
        merging.name_models(registry, report, plain(ids))
    assert registry.list_aliases() == ()
    assert not list((registry.models_dir / ".aliases").glob("*/*"))
    monkeypatch.undo()
    merging.name_models(registry, report, plain(ids))
    assert set(fates(report).values()) == {"added"}


KILLED = """
import os, signal, sys
from pathlib import Path
from loguru import logger
from sleap_rtc.library import christening, merging
from sleap_rtc.library.registry import Registry

logger.remove()
registry, at = Registry(Path(sys.argv[1]), index_dir=Path(sys.argv[2])), int(sys.argv[3])
report = merging.Report("x")
ids = sorted(entry.id for entry in registry.walk())
report.ids = {model: model for model in ids}
real, given = christening.give_name, []

def killed(*named):
    given.append(named)
    if len(given) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*named)

christening.give_name = killed
merging.name_models(registry, report, [(f"Fly-{n}", (model,)) for n, model in enumerate(ids)])
"""


@pytest.mark.slow
def test_after_a_kill_the_next_to_ask_sees_every_name_that_was_given(
    registry: Registry, ids: list[str], tmp_path: Path, report: Report
) -> None:
    assert len(registry.list().entries) == 12
    given = [sys.executable, "-c", KILLED, registry.models_dir, tmp_path / "theirs", "6"]
    assert subprocess.run(given, check=False, timeout=60).returncode == -9
    named = {entry.alias for entry in registry.list().entries} - {None}
    assert named == {f"Fly-{n}" for n in range(5)}
    merging.name_models(
        registry, report, [(f"Fly-{n}", (model,)) for n, model in enumerate(sorted(ids))]
    )
    assert set(fates(report).values()) == {"added", "known"}
    assert {entry.alias for entry in registry.list().entries} == {f"Fly-{n}" for n in range(12)}
