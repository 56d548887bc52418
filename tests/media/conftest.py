"""One small made data set for all tests of this folder."""

from __future__ import annotations

import pytest

from sleap_rtc.media.synthetic import Dataset, SyntheticSpec, make_dataset


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = SyntheticSpec(size=(96, 112), labelled=4, frames=6)
    return make_dataset(tmp_path_factory.mktemp("made"), spec)
