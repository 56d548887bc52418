"""The demo's configurations are ones that both engines take."""

from __future__ import annotations

import pytest

from sleap_rtc.demo.configs import EFFORTS, write_configs
from sleap_rtc.engines.registry import engine


@pytest.mark.parametrize("name", sorted(EFFORTS))
def test_the_engine_takes_them_as_they_are(tmp_path, name):
    paths = write_configs(tmp_path / "configs", name, ("head", "tail"))
    found = [engine(name).read_config(p.read_text("utf-8"), where=str(p)) for p in paths]
    assert [s.model_type for s in found] == ["centroid", "centered_instance"]
    assert [s.refused for s in found] == [{}, {}]
    assert [s.epochs for s in found] == [
        EFFORTS[name].centroid_epochs,
        EFFORTS[name].instance_epochs,
    ]
    assert [s.run_name for s in found] == ["demo.centroid", "demo.centered_instance"]
