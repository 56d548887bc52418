"""Before the demo itself: the engine is installed, and a network is chosen.

WebRTC doesn't offer 127.0.0.1 to the other side, so the demo's machines need
another address. Where the system allows it they get a network namespace of
their own, from which nothing can leave; elsewhere they use this computer's
interfaces, and the demo says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sleap_rtc.demo.steps import Demo, Say, needs_engine
from sleap_rtc.domain.units import format_bytes

INSIDE = "SLEAP_RTC_NETNS"
_NAMESPACE = (sys.executable, "-m", "sleap_rtc.testing.netns", "--")


def run(root: Path, *, engine: str, say: Say) -> None:
    """Run the demo; does not return when it goes on in a namespace of its own.

    Args:
        root: Where everything is kept.
        engine: ``sleap-nn`` or ``tiny``.
        say: Shows a line to the person.

    Raises:
        SleapRtcError: A step failed.
    """
    if needs_engine(engine):
        _install(say)
    if os.environ.get(INSIDE):
        network = "a network namespace of its own, with no route out"
    elif subprocess.run((*_NAMESPACE, "true"), capture_output=True, check=False).returncode == 0:
        sys.stdout.flush()
        again = ("demo", "--engine", engine, "--dir", str(root))
        os.execv(sys.executable, [*_NAMESPACE, sys.executable, "-m", "sleap_rtc", *again])  # noqa: S606
    else:
        network = "this computer's interfaces: a namespace can't be made here"
    say(f"Network: {network}.")
    _close_keyboard()
    # On few cores, more threads than the engine needs make it slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    Demo(root, engine=engine, say=say, network=network).run()


def _close_keyboard() -> None:
    """Ask nobody: programs that read frames listen to a keyboard, and stop in the background."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _install(say: Say) -> None:
    from sleap_rtc.engines.sleap_nn.environment import install, plan_installation  # noqa: PLC0415
    from sleap_rtc.engines.sleap_nn.places import default_places  # noqa: PLC0415

    plan = plan_installation(default_places())
    say(f"Installing sleap-nn: {format_bytes(plan.size)}, some minutes, once per machine.")
    install(plan, lambda line: say(f"    {line}"))
