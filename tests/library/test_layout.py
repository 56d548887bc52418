from pathlib import Path

import pytest

from sleap_rtc.library import layout


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("centroid_3f2a9c01", ("centroid", "3f2a9c01")),
        ("centered_instance_3f2a9c01-12", ("centered_instance", "3f2a9c01-12")),
        ("centroid_3F2A9C01", None),
        ("centroid_3f2a9c01-1", None),
        ("centroid-3f2a9c01", None),
        ("_3f2a9c01", None),
        ("centroid_3f2a9c01\n", None),
        (".aliases", None),
    ],
)
def test_names_of_model_directories(name: str, parsed: tuple[str, str] | None) -> None:
    assert layout.parse(name) == parsed


def test_only_directories_are_listed(tmp_path: Path) -> None:
    (tmp_path / "centroid_3f2a9c01").mkdir()
    (tmp_path / "centroid_00000000").touch()
    (tmp_path / "centroid_11111111").symlink_to(tmp_path / "centroid_3f2a9c01")
    (tmp_path / "other").mkdir()
    assert list(layout.names(tmp_path)) == ["centroid_3f2a9c01"]
    assert list(layout.names(tmp_path / "none")) == []


def test_the_librarys_own_names() -> None:
    own = [".record", ".record/00000001.json", ".RECORD/x", "model.json", "Model.JSON"]
    assert all(map(layout.is_own, own))
    assert not any(map(layout.is_own, ["best.ckpt", "sub/model.json", "model.json/x", "x/.record"]))


def test_listing_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert layout.listing(tmp_path) == ["file"]
    assert layout.listing(tmp_path / "none") == []
    assert layout.listing(tmp_path / "file") == []
