from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from sleap_rtc.engines.sleap_nn import environment
from sleap_rtc.engines.sleap_nn.places import PYTHON_VARIABLE, Places, default_places
from sleap_rtc.errors import Busy, EngineError, EngineMissing, OutOfSpace
from sleap_rtc.files.claim import Claim


def _plan(places: Places, *requirements: str) -> environment.Plan:
    return environment.Plan(
        directory=places.engines / "sleap-nn-test",
        python=Path(sys.executable),
        device="cpu",
        requirements=requirements,
        size=1_000,
    )


def test_the_size_is_known_before(tmp_path: Path) -> None:
    plan = environment.plan_installation(Places(engines=tmp_path))
    assert plan.size > 1_000_000_000
    assert plan.requirements[0] == f"sleap-nn=={environment.VERSION}"
    assert environment.VERSION in plan.directory.name
    assert environment.TORCH in plan.directory.name
    assert not list(tmp_path.iterdir()), "nothing is changed by asking"


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    places = Places(engines=tmp_path)
    with pytest.raises(EngineMissing, match="not installed") as caught:
        environment.find(places)
    assert "engine install" in caught.value.hint_text
    half = environment.plan_installation(places).directory
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").touch()
    with pytest.raises(EngineMissing):
        environment.find(places)
    (half / environment.MARKER).write_text("{}")
    assert environment.find(places).python == half / "bin" / "python"


def _python(folder: Path, says: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_a_fitting_python_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing) as caught:
        environment.plan_installation(Places(engines=tmp_path), python=_python(tmp_path, "3 9"))
    assert "Install Python 3.11" in caught.value.hint_text


def test_an_existing_environment_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(_python(tmp_path, "0.3.9")))
    found = environment.find(default_places())
    assert (found.python, found.version) == (tmp_path / "python", "0.3.9")
    # This test's own Python has no sleap-nn.
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    with pytest.raises(EngineMissing, match=sys.executable):
        environment.find(default_places())
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(EngineMissing):
        environment.find(default_places())


def test_where_environments_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEAP_RTC_ENGINES", str(tmp_path / "e"))
    assert default_places() == Places(engines=tmp_path / "e")


def test_one_at_a_time_and_only_where_there_is_room(tmp_path: Path) -> None:
    plan = _plan(Places(engines=tmp_path))
    said: list[str] = []
    with Claim(tmp_path / "sleap-nn-test.lock", what="x"), pytest.raises(Busy):
        environment.install(plan, said.append)
    huge = environment.Plan(
        directory=plan.directory, python=plan.python, device="cpu", requirements=(), size=1 << 60
    )
    with pytest.raises(OutOfSpace):
        environment.install(huge, said.append)


@pytest.mark.slow
def test_a_failed_installation_is_half_made_and_made_again(tmp_path: Path) -> None:
    places = Places(engines=tmp_path)
    said: list[str] = []
    left = tmp_path / "sleap-nn-test" / "lib" / "left.py"
    left.parent.mkdir(parents=True)
    left.touch()
    with pytest.raises(EngineError, match=r"pip failed while installing sleap-nn: .*absent"):
        environment.install(_plan(places, str(tmp_path / "absent.whl")), said.append)
    assert not environment.is_complete(tmp_path / "sleap-nn-test")
    assert any(line.startswith("Removing what an earlier attempt left") for line in said)
    assert not left.exists()
    # The mend is in it from the start, and a Python with it starts as ever.
    packages = list((tmp_path / "sleap-nn-test").glob("lib/python*/site-packages"))
    assert (packages[0] / "sleap_rtc_mend.pth").is_file()
    python = tmp_path / "sleap-nn-test" / "bin" / "python"
    assert os.spawnl(os.P_WAIT, python, str(python), "-c", "import _sleap_rtc_mend") == 0
