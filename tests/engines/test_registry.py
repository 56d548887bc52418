from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sleap_rtc.engines import registry
from sleap_rtc.engines.sleap_nn.places import Places
from sleap_rtc.errors import EngineMissing


def test_engines_by_name(tmp_path: Path) -> None:
    places = Places(engines=tmp_path)
    assert [registry.engine(name, places).name for name in registry.NAMES] == ["sleap-nn", "tiny"]
    with pytest.raises(EngineMissing, match="no-such"):
        registry.engine("no-such", places)


@pytest.mark.parametrize(
    ("trainer", "name"),
    [(None, "sleap-nn"), ("sleap", "sleap-nn"), ("tiny", "tiny"), ("another", "another")],
)
def test_the_engine_that_runs_a_trainers_models(trainer: str | None, name: str) -> None:
    assert registry.running(trainer) == name


def test_what_is_installed_is_listed(tmp_path: Path) -> None:
    assert list(registry.available(Places(engines=tmp_path))) == ["tiny"]


def test_nothing_heavy_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sleap_rtc.engines import registry\n"
        "from sleap_rtc.engines.sleap_nn.places import Places\n"
        "text = 'model_config: {head_configs: {centroid: {confmaps: {}}}}'\n"
        "for name in registry.NAMES:\n"
        "    made = registry.engine(name, Places(engines=Path(sys.argv[1])))\n"
        "    made.read_config(text, where='c')\n"
        "heavy = {'numpy', 'h5py', 'zmq', 'sleap_io', 'imageio'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
