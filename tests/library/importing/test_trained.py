"""What the real PyTorch writes is known. (A model that sleap-nn trained: its engine's tests.)"""

from __future__ import annotations

import subprocess

import pytest

from sleap_rtc.engines.sleap_nn import environment
from sleap_rtc.engines.sleap_nn.places import Places, default_places
from sleap_rtc.errors import DataError, EngineMissing
from sleap_rtc.library.inspection.formats import look

pytestmark = [
    pytest.mark.slow,
    pytest.mark.engine,
    pytest.mark.timeout(900),  # the first of them may have to make the environment
]

SAVES = """
import sys, torch
model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Linear(4, 4).half())
optimizer = torch.optim.Adam(model.parameters())
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
optimizer.step()
content = {"epoch": 7, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
folder = sys.argv[1]
torch.save(content, folder + "/new.pt")
torch.save(content, folder + "/old.pt", _use_new_zipfile_serialization=False)
torch.save(model, folder + "/module.pt")
torch.jit.script(torch.nn.Linear(2, 2)).save(folder + "/program.pt")
"""


@pytest.fixture(scope="session")
def places() -> Places:
    found = default_places()
    try:
        environment.find(found)
    except EngineMissing:
        environment.install(environment.plan_installation(found), print)
    return found


def test_what_pytorch_writes_is_known(places, tmp_path):
    python = environment.find(places).python
    subprocess.run([python, "-c", SAVES, tmp_path], check=True, timeout=300)
    found = {path.stem: look(path) for path in tmp_path.glob("*.pt")}
    assert {name: each.tier for name, each in found.items()} == {
        "new": "scanned",
        "old": "scanned",
        "module": "flagged",
        "program": "flagged",
    }
    assert found["new"].epoch == found["old"].epoch == 7
    assert "torch.nn" in found["module"].sentence
    assert "TorchScript" in found["program"].sentence
    for name in ("new", "old"):
        whole = (tmp_path / f"{name}.pt").read_bytes()
        cut = tmp_path / "cut"
        for length in range(0, len(whole), 97):
            cut.write_bytes(whole[:length])
            with pytest.raises(DataError):
                look(cut, name="cut.pt")
