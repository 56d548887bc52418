from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sleap_rtc.engines.sleap_nn import mend

BROKEN = """
import torch
if not torch.library.declared:
    import torchvision.half
    raise RuntimeError("operator torchvision::nms does not exist")
from torchvision import half
whole = True
"""
OTHER = 'raise RuntimeError("another reason")'
HEALTHY = "whole = True"
TORCH = """
import types, sys
class Library:
    def __init__(self, name, kind): assert (name, kind) == ("torchvision", "DEF")
    def define(self, schema): library.declared.append(schema)
library = types.SimpleNamespace(declared=[], Library=Library)
"""


def _run(folder: Path, torchvision: str, code: str) -> subprocess.CompletedProcess[str]:
    """A Python with the mend, a torch that keeps what is declared, and that torchvision."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(torchvision)
    (folder / "torchvision" / "half.py").write_text(
        "import torch; seen = torch.library.declared[:]"
    )
    (folder / "torch.py").write_text(TORCH)
    (folder / "_sleap_rtc_mend.py").write_bytes(Path(mend.__file__).read_bytes())
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); import _sleap_rtc_mend; "
    return subprocess.run(
        [sys.executable, "-I", "-c", start + code], capture_output=True, text=True, check=False
    )


def test_the_operators_are_declared_and_the_import_tried_again(tmp_path: Path) -> None:
    code = "import torchvision, torch; print(torchvision.whole, len(torchvision.half.seen))"
    ran = _run(tmp_path, BROKEN, code)
    assert (ran.stdout, ran.stderr) == ("True 2\n", "")


def test_a_healthy_one_is_left_alone(tmp_path: Path) -> None:
    code = "import torchvision, sys; print(torchvision.whole, 'torch' in sys.modules)"
    assert _run(tmp_path, HEALTHY, code).stdout == "True False\n"


@pytest.mark.parametrize("broken", [OTHER])
def test_another_error_is_passed_on(tmp_path: Path, broken: str) -> None:
    ran = _run(tmp_path, broken, "import torchvision")
    assert ran.returncode == 1
    assert "RuntimeError: another reason" in ran.stderr
