from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sleap_rtc.testing import model_files


@pytest.fixture
def samples() -> ModuleType:
    """Makes files of every format."""
    return model_files


@pytest.fixture
def whole() -> Callable[[Path], dict[str, bytes]]:
    """File name → content, one of each format; the folder is for HDF5's library."""

    def make(folder: Path) -> dict[str, bytes]:
        pytest.importorskip("h5py", reason="h5py is not installed")
        return {
            "best.ckpt": model_files.torch_zip(),
            "torch.pt": model_files.torch_zip({"a": model_files.Storage("0", 40)}),
            "old.pt": model_files.old_torch(),
            "model.safetensors": model_files.safetensors(),
            "model.gguf": model_files.gguf(),
            "model.onnx": model_files.onnx(),
            "model.keras": model_files.keras(),
            "best.npz": model_files.npz(),
            "best_model.h5": model_files.hdf5(folder / "made.h5"),
            "latest.h5": model_files.hdf5(folder / "made2.h5", libver="latest"),
        }

    return make


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write a file: ``written("best.ckpt", content)``."""

    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write
