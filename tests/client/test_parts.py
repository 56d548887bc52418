"""What a job brings, as it is named and stored."""

from __future__ import annotations

from pathlib import Path

from sleap_rtc.client.parts import with_whole_paths
from sleap_rtc.files.packing import pack


def test_files_of_the_library_are_named_by_their_whole_paths(tmp_path: Path) -> None:
    real, folder = tmp_path / "real.ckpt", tmp_path / "library" / "model"
    (folder / "logs").mkdir(parents=True)
    real.write_bytes(b"weights")
    (folder / "logs" / "a b.csv").write_bytes(b"epoch\n")
    files = {"best.ckpt": real, "logs/a b.csv": folder / "logs" / "a b.csv"}
    packed = with_whole_paths(pack(files, root=folder))
    assert packed.root is None
    assert [source.path for source in packed.sources] == [str(real), str(files["logs/a b.csv"])]
    assert not any(source.beneath for source in packed.sources)
    assert with_whole_paths(packed) is packed
