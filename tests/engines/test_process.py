from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.engines.base import EngineEvent, Outcome, Said, Stepped
from sleap_rtc.engines.process import (
    Ending,
    ProcessRun,
    disk_was_full,
    end_group,
    identify,
    last_error,
    scrubbed,
)


class Watch:
    """Takes every line as it is."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self.stops = 0

    async def started(self, run: ProcessRun) -> None:
        self.run = run

    def on_line(self, line: str, *, error: bool) -> Iterable[EngineEvent]:
        return [Said(line=f"{'!' if error else ''}{line}")]

    async def request_stop(self) -> None:
        self.stops += 1
        await self.run.tell("stop")

    async def drain(self) -> None:
        """Nothing else to read."""

    def conclude(self, ending: Ending) -> Outcome:
        self.ending = ending
        return Outcome(kind="succeeded", log_tail=ending.log_tail)


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait for something that only the system knows, and tells nobody."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


async def _start(code: str, folder: Path, watch: Watch) -> ProcessRun:
    return await ProcessRun.start(
        [sys.executable, "-I", "-u", "-c", code],
        directory=folder,
        environment=scrubbed(os.environ, home=folder, threads=2, extra={}),
        log=folder / "log",
        watcher=watch,
    )


async def test_what_it_says_is_heard_and_logged(tmp_path: Path) -> None:
    watch = Watch()
    code = "import sys; print('\\x1b[1mout\\x1b[0m'); print('err', file=sys.stderr)"
    run = await _start(code, tmp_path, watch)
    said = {event.line async for event in run.events() if isinstance(event, Said)}
    assert said == {"out", "!err"}
    outcome = await run.outcome()
    assert set(outcome.log_tail) == said
    assert set((tmp_path / "log").read_text().splitlines()) == said
    assert watch.ending == Ending(
        returncode=0, cancelled=False, stop_asked=False, log_tail=outcome.log_tail
    )


async def test_its_environment_holds_no_secrets(tmp_path: Path) -> None:
    code = "import os; print(sorted(os.environ)); print(os.environ['OMP_NUM_THREADS'])"
    os.environ["SECRET_TOKEN"] = "t"
    try:
        run = await _start(code, tmp_path, Watch())
    finally:
        del os.environ["SECRET_TOKEN"]
    names, threads = (await run.outcome()).log_tail
    assert "SECRET_TOKEN" not in names
    assert "SLEAP_RTC_HOME" not in names
    assert "'HOME'" in names
    assert threads == "2"


async def test_stop_is_told_and_the_outcome_knows_it(tmp_path: Path) -> None:
    watch = Watch()
    run = await _start("print(input())", tmp_path, watch)
    await run.stop()
    assert (await run.outcome()).log_tail == ("stop",)
    await run.stop()
    assert watch.stops == 1
    assert watch.ending is not None
    assert watch.ending.stop_asked


async def test_one_that_ignores_the_request_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    watch = Watch()
    run = await _start(code, tmp_path, watch)
    child = None
    async for event in run.events():
        assert isinstance(event, Said)
        child = identify(int(event.line))
        break
    assert child is not None
    await run.cancel(grace_s=0.2)
    assert watch.ending is not None
    assert watch.ending.cancelled
    assert watch.ending.returncode == -signal.SIGKILL
    await _until(lambda: identify(child.pid) != child)
    await run.cancel()


async def test_a_frozen_one_can_be_cancelled(tmp_path: Path) -> None:
    watch = Watch()
    run = await _start("import time; time.sleep(600)", tmp_path, watch)
    run.pause()
    await run.cancel(grace_s=10)
    assert watch.ending is not None
    assert watch.ending.returncode == -signal.SIGTERM
    run.pause()
    run.resume()


async def test_a_child_that_keeps_the_output_open_does_not_keep_us(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid)\n"
    )
    run = await _start(code, tmp_path, Watch())
    (pid,) = (await run.outcome()).log_tail
    await _until(lambda: identify(int(pid)) is None)


async def test_nobody_reads_and_it_goes_on(tmp_path: Path) -> None:
    run = await _start("[print(i) for i in range(30_000)]", tmp_path, Watch())
    outcome = await run.outcome()
    assert outcome.log_tail[-1] == "29999"
    assert (tmp_path / "log").read_text().count("\n") == 30_000
    # What is dropped for want of a reader are lines and steps.
    run.emit(Stepped(done=1))
    assert [e async for e in run.events() if isinstance(e, Stepped)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
async def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_process import Watch, _start
async def main():
    run = await _start("import time; time.sleep(600)", Path({str(tmp_path)!r}), Watch())
    print(run.pid, flush=True)
    await run.outcome()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        child = identify(int(await parent.stdout.readline()))
        assert child is not None
        # It is told of the death from when it has become the program.
        command = Path(f"/proc/{child.pid}/cmdline")
        await _until(lambda: b"prctl" not in command.read_bytes())
    finally:
        parent.kill()
    await parent.wait()
    await _until(lambda: identify(child.pid) != child)


def test_a_process_is_known_by_more_than_its_number() -> None:
    here = identify(os.getpid())
    assert here is not None
    assert identify(os.getpid()) == here
    other = msgspec.structs.replace(here, start="0")
    assert not end_group(other)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with process:
        found = identify(process.pid)
        assert found is not None
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert identify(process.pid) is None, "one that ended and wasn't asked for is gone too"
    assert not end_group(found)


def test_a_group_is_ended() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    with process:
        found = identify(process.pid)
        assert found is not None
        assert end_group(found, kill=True)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["Traceback …", "ValueError: no frames", "wandb: done"], "ValueError: no frames"),
        (["torch.cuda.OutOfMemoryError: CUDA out of memory"], "torch.cuda.OutOfMemoryError"),
        (["12:00 | ERROR | it failed", "bye"], "it failed"),
        (["the last words"], "the last words"),
        ([], ""),
    ],
)
def test_the_line_that_says_most(lines: list[str], why: str) -> None:
    assert why in last_error(lines)


def test_a_full_disk_is_nobodys_fault() -> None:
    assert disk_was_full(["Traceback …", "OSError: [Errno 28] No space left on device", ""])
    assert not disk_was_full(["ValueError: no labelled frames"])
    assert not disk_was_full([])
