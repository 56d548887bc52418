"""Before the demo itself."""

from __future__ import annotations

import os
import subprocess
import sys

from sleap_rtc.demo.launch import INSIDE

PROGRAM = """
import os, sys
from pathlib import Path
from sleap_rtc.demo import launch

class Demo:
    def __init__(self, root, **_):
        pass

    def run(self):
        print(os.read(0, 1))

launch.Demo = Demo
launch.run(Path(sys.argv[1]), engine="tiny", say=lambda _: None)
"""


def test_nothing_in_it_listens_to_the_keyboard(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {INSIDE: "10.77.0.1"},
    ) as program:
        assert program.stdout.read() == "b''\n"
