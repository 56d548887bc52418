"""Uploads that were begun and are given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.errors import StorageUnreachable
from sleap_rtc.files.claim import Claim
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.upload import forget_uploads, unfinished, upload_file
from sleap_rtc.testing.store_endpoint import StoreEndpoint


def test_what_was_begun_of_a_file_is_forgotten_unless_a_process_is_at_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    paths = [tmp_path / name for name in ("a", "b", "c")]
    with StoreEndpoint(tmp_path / "store") as endpoint:
        for path in paths:
            path.write_bytes(path.name.encode() * (6 << 20))
            endpoint.fault = lambda _method, _number: "500"
            with pytest.raises(StorageUnreachable):
                upload_file(
                    endpoint.store,
                    path,
                    f"models/{path.name}",
                    state=state,
                    part_size=5 << 20,
                    patience=Patience(attempts=1, base=0.0, cap=0.0),
                )
    assert len(list(unfinished(state))) == 3
    assert forget_uploads(state, [tmp_path / "none"]) == 0
    assert forget_uploads(state, [paths[0], tmp_path / "none"]) == 1
    first, second = unfinished(state)
    (first / "journal").write_text("rubbish")
    with Claim(second, what="The upload"):
        assert forget_uploads(state, paths) == 0
    assert forget_uploads(state, paths) == 1
    assert list(unfinished(state)) == [first]
    assert forget_uploads(tmp_path / "nowhere", paths) == 0
