"""Small model files of every format, made as their programs make them, without these programs."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, Final

TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C


class Storage:
    """Pickles as torch pickles a storage: by a persistent id."""

    def __init__(self, key: str, items: int, kind: str = "FloatStorage") -> None:
        self.key, self.items, self.kind = key, items, kind


class _Kind:
    def __init__(self, name: str) -> None:
        self.name = name


class TorchPickler(pickle._Pickler):
    """Writes what torch would, without torch."""

    def persistent_id(self, value: Any) -> Any:
        """What stands for a storage."""
        if isinstance(value, Storage):
            return ("storage", _Kind(value.kind), value.key, "cpu", value.items)
        return None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Write a storage's kind by its name; there is no torch to look it up in."""
        if isinstance(obj, _Kind):
            self.write(b"ctorch\n" + obj.name.encode() + b"\n")  # type: ignore[attr-defined]
            self.memoize(obj)  # type: ignore[attr-defined]
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]


def torch_pickle(content: object) -> bytes:
    """A pickle as torch writes it, with storages by name."""
    stream = io.BytesIO()
    TorchPickler(stream, protocol=2).dump(content)
    return stream.getvalue()


CONTENT: Final = {
    "epoch": 4,
    "pytorch-lightning_version": "2.6.6",
    "state_dict": {"a": Storage("0", 40), "b": Storage("1", 9, "LongStorage")},
}


def torch_zip(content: object = CONTENT, sizes: tuple[int, ...] = (160, 72)) -> bytes:
    """A checkpoint of today's PyTorch; ``sizes`` are the bytes of its storages."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("best/data.pkl", torch_pickle(content))
        for number, size in enumerate(sizes):
            archive.writestr(f"best/data/{number}", b"\1" * size)
        archive.writestr("best/version", b"3\n")
    return stream.getvalue()


def old_torch(content: object = CONTENT) -> bytes:
    """A checkpoint as PyTorch wrote them before 1.6."""
    parts = [TORCH_MAGIC, 1001, {"little_endian": True}, content, ["0", "1"]]
    data = b"".join(torch_pickle(part) for part in parts)
    return data + struct.pack("<q", 40) + b"\1" * 160 + struct.pack("<q", 9) + b"\2" * 72


def safetensors(*, metadata: bool = True) -> bytes:
    """Two tensors as safetensors."""
    table: dict[str, Any] = {
        "a": {"dtype": "F32", "shape": [2, 5], "data_offsets": [0, 40]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [40, 48]},
    }
    if metadata:
        table["__metadata__"] = {"format": "pt"}
    header = json.dumps(table).encode()
    return struct.pack("<Q", len(header)) + header + b"\7" * 48


def gguf() -> bytes:
    """Two tensors and some entries as GGUF."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [
        text("general.architecture") + struct.pack("<I", 8) + text("pose"),
        text("general.alignment") + struct.pack("<II", 4, 64),
        text("a.list") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("y"),
        text("a.numbers") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3),
        text("a.float") + struct.pack("<Id", 12, 0.5),
    ]
    tensors = [
        text("w") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0),
        text("q") + struct.pack("<IQIQ", 1, 64, 8, 64),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    head += b"".join(entries) + b"".join(tensors)
    return head.ljust(-(-len(head) // 64) * 64, b"\0") + b"\5" * (64 + 68)


def field(number: int, value: int | bytes) -> bytes:
    """A field of protobuf."""

    def varint(found: int) -> bytes:
        out = b""
        while found > 0x7F:
            out += bytes([found & 0x7F | 0x80])
            found >>= 7
        return out + bytes([found])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx(*, beside: str | None = None) -> bytes:
    """A network as ONNX; its weights may be in a file beside it."""
    tensor = field(1, 3) + field(8, b"w")
    if beside is None:
        tensor += field(9, b"\3" * 300)
    else:
        tensor += field(13, field(1, b"location") + field(2, beside.encode())) + field(14, 1)
    graph = field(1, field(4, b"Conv")) + field(2, b"graph") + field(5, tensor)
    return field(1, 9) + field(2, b"pytorch") + field(7, graph) + field(8, field(2, 17))


def keras_config(layer: str = "Conv2D") -> str:
    """A network's architecture as Keras writes it."""
    return json.dumps(
        {"class_name": "Functional", "config": {"layers": [{"class_name": layer, "config": {}}]}}
    )


def keras(layer: str = "Conv2D") -> bytes:
    """A network as Keras 3 writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", keras_config(layer))
        archive.writestr("model.weights.h5", b"\x89HDF" * 30)
    return stream.getvalue()


def npz(header: str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }") -> bytes:
    """An array in numpy's archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"\0" * 8
        archive.writestr("weights.npy", body)
    return stream.getvalue()


def hdf5(path: Path, layer: str = "Conv2D", **file: Any) -> bytes:
    """As Keras writes it, by the library that Keras uses."""
    import h5py  # noqa: PLC0415 - an extra

    with h5py.File(path, "w", **file) as out:
        out.attrs["model_config"] = keras_config(layer)
        out.attrs["keras_version"] = "2.7.0"
        group = out.create_group("model_weights")
        group.attrs["layer_names"] = [b"conv"]
        group.create_dataset("conv", data=[0.5] * 200)
    return path.read_bytes()


def folder(
    path: Path,
    head: str = "centroid",
    *,
    name: str = "run",
    seed: int = 1,
    checkpoint: str = "best.ckpt",
) -> Path:
    """A model's folder as sleap-nn leaves it; another seed gives another content."""
    path.mkdir(parents=True, exist_ok=True)
    content = {"epoch": seed, "pytorch-lightning_version": "2.6.6", "w": Storage("0", seed)}
    (path / checkpoint).write_bytes(torch_zip(content, (4 * seed,)))
    nodes = [{"name": "head"}, {"name": "tail"}]
    config = {
        "data_config": {"skeletons": [{"nodes": nodes}]},
        "model_config": {
            "backbone_config": {"unet": {"filters": 16}, "convnext": None},
            "head_configs": {head: {"confmaps": {"sigma": 2.5}}, "bottomup": None},
        },
        "trainer_config": {"run_name": name, "max_epochs": 9, "optimizer": {"lr": 0.001}},
    }
    (path / "training_config.yaml").write_text(json.dumps(config))
    (path / "training_log.csv").write_text("epoch,train/loss,val/loss\n0,0.5,0.6\n1,0.25,0.4\n")
    return path
