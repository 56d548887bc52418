"""Make ``import torchvision`` work beside a torch built for another device.

A torchvision built for CUDA fails to import beside a torch built for processors,
with ``operator torchvision::nms does not exist``, though the trainer needs no such
operator. This file is copied into the engine's environment, where a ``.pth`` file
imports it when Python starts. It waits for the import of torchvision; on exactly
that error the two missing operators are declared and the import is tried again.
On a healthy installation nothing is changed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_NAME = "torchvision"
_SYMPTOM = "operator torchvision::nms does not exist"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[Any] = []
"""The declarations last as long as this object does."""


class _Loader(importlib.abc.Loader):
    """Runs the real loader, twice if need be."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except RuntimeError as error:
            if _SYMPTOM not in str(error):
                raise
            for name in [name for name in sys.modules if name.startswith(_NAME + ".")]:
                del sys.modules[name]
            for name in [name for name in vars(module) if not name.startswith("__")]:
                delattr(module, name)
            _declare()
            self._loader.exec_module(module)


def _declare() -> None:
    import torch  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    library = torch.library.Library(_NAME, "DEF")
    library.define(f"nms{_SCHEMA}")
    library.define(f"qnms{_SCHEMA}")
    _kept.append(library)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds torchvision where it is, and puts the loader above around its own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _NAME:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
