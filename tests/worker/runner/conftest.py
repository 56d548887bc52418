"""A worker's directory with real runner processes in it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.domain.ids import JobId, RoomId, make_uuid7
from sleap_rtc.domain.packages import ref
from sleap_rtc.domain.values import decode, encode_pretty
from sleap_rtc.engines.process import ProcessIdentity, identify
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.events import JobEvent, StateChanged
from sleap_rtc.jobs.lifecycle import JobView, replay
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec, TrainStage
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.job_directory import JobDirectory, JobStore
from sleap_rtc.worker.runner.client import RunnerHandle, launch
from sleap_rtc.worker.runner.link import remove_socket
from sleap_rtc.worker.runner.logfile import LogReader, LogWriter
from sleap_rtc.worker.runner.plan import RunnerPlan, TrainerFile
from sleap_rtc.worker.runner.recovery import recover

ENGINE = Path(__file__).with_name("stepwise.py")
STEPWISE = (sys.executable, str(ENGINE))
LIMIT_S = 120.0


def now() -> datetime:
    return datetime.now(UTC)


def load_engine() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stepwise", ENGINE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Worker:
    """A worker without its daemon: the test is the daemon."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = JobStore(root / "jobs")
        self.library = Registry(root / "models", index_dir=root / "index")
        self.gate_path = root / "gate"
        os.mkfifo(self.gate_path)
        self._gate = os.open(self.gate_path, os.O_RDWR)
        self._started: list[RunnerHandle] = []
        self._count = 0
        self.engine = load_engine().Stepwise()

    def go(self, epochs: int = 1) -> None:
        """Let the trainer do so many epochs."""
        os.write(self._gate, b"." * epochs)

    def train(
        self, *stages: dict[str, Any], resume: str | None = None, **more: Any
    ) -> JobDirectory:
        """Submit a training job; each stage is what its configuration says."""
        files: dict[str, bytes] = {"labels.pkg.slp": b"labels"}
        listed = []
        for number, stage in enumerate(stages or ({},)):
            config = {
                "model_type": "centroid" if number == 0 else "centered_instance",
                "epochs": 3,
                "gate": str(self.gate_path),
            } | stage
            files[f"c{number}.json"] = config.pop("raw", None) or json.dumps(config).encode()
            listed.append(
                TrainStage(
                    config=f"c{number}.json",
                    model_type=config.pop("asked", config["model_type"]),
                    run_name=f"run{number}",
                    resume=resume,  # type: ignore[arg-type]
                )
            )
        work = TrainSpec(
            labels=more.get("labels", "labels.pkg.slp"),
            stages=tuple(listed),
            dataset_name="labels.pkg.slp",
            dataset_hash=more.get("dataset", blake3(b"labels").hexdigest()),
        )
        # Who doesn't hear it can't be waited for: then the grace is only time.
        deaf = any(stage.get("deaf") for stage in stages)
        return self.submit(work, files, grace_s=more.get("grace_s", 0.3 if deaf else 3.0))

    def track(self, *videos: str, ending: str = ".mp4") -> JobDirectory:
        """Submit a tracking job over videos with these contents."""
        names = tuple(f"clips/v{number}{ending}" for number in range(len(videos)))
        model = ModelRef(id="3f2a9c01", package="ab" * 32)  # type: ignore[arg-type]
        files = {name: video.encode() for name, video in zip(names, videos, strict=True)}
        return self.submit(TrackSpec(models=(model,), videos=names), files, models=("/model",))

    def submit(
        self,
        work: TrainSpec | TrackSpec,
        files: dict[str, bytes],
        models: tuple[str, ...] = (),
        engine: str = "stepwise",
        grace_s: float = 3.0,
    ) -> JobDirectory:
        self._count += 1
        inputs = self.root / "inputs" / str(self._count)
        for name, data in files.items():
            (inputs / name).parent.mkdir(parents=True, exist_ok=True)
            (inputs / name).write_bytes(data)
        packed = pack({name: inputs / name for name in files})
        job_id = make_uuid7(unix_ms=1_700_000_000_000 + self._count, randomness=bytes(10))
        spec = JobSpec(
            id=JobId(job_id),
            engine=engine,
            work=work,
            inputs=ref(packed.package),
            room=RoomId("a" * 32),
        )
        job = self.store.create(spec, clock=now)
        plan = RunnerPlan(
            engine=engine,
            inputs=str(inputs),
            library=str(self.library.models_dir),
            models=models,
            worker="gpu-01",
            grace_s=grace_s,
        )
        write_replacing(job.plan, encode_pretty(plan))
        return job

    async def launch(self, job: JobDirectory, program: tuple[str, ...] = STEPWISE) -> RunnerHandle:
        handle = await launch(job, program=program)
        self._started.append(handle)
        return handle

    async def recover(self, job: JobDirectory) -> JobView:
        return await recover(job, clock=now, engine=lambda name: self.engine)

    def requeue(self, job: JobDirectory) -> None:
        with job.claim(), LogWriter(job.log, clock=now) as log:
            log.append(StateChanged(state="queued"))

    def trainer(self, job: JobDirectory) -> ProcessIdentity:
        return decode(TrainerFile, job.trainer.read_bytes(), what="trainer").process

    def log(self, job: JobDirectory) -> list[JobEvent]:
        reader, events = LogReader(job.log), []
        while more := reader.read():
            events += more
        return events

    def view(self, job: JobDirectory) -> JobView:
        return replay(self.log(job))

    async def until(
        self, handle: RunnerHandle, seen: Callable[[JobView], bool], since: int = 0
    ) -> JobView:
        """Follow a job until its view is as wanted, or its runner has ended or is gone."""
        view = replay(event for event in self.log(handle.job) if event.n <= since)
        async with asyncio.timeout(LIMIT_S):
            events = handle.events(since)
            try:
                async for event in events:
                    view = replay([event], view)
                    if seen(view):
                        break
            finally:
                await events.aclose()
        return view

    async def to_end(self, handle: RunnerHandle) -> JobView:
        """Follow a job until its runner has ended or is gone; and it really goes."""
        view = await self.until(handle, lambda view: False)
        await self.gone(handle.process)
        return view

    async def gone(self, process: ProcessIdentity) -> None:
        """Wait until a process that isn't a child of ours has gone."""
        async with asyncio.timeout(LIMIT_S):
            while identify(process.pid) == process:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def end_all(self) -> None:
        """No test leaves a process behind, whatever it found out."""
        for handle in self._started:
            if handle.alive:
                os.kill(handle.process.pid, signal.SIGKILL)
            remove_socket(handle.socket)
        os.close(self._gate)
        self.library.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    try:
        yield made
    finally:
        made.end_all()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Gives a disk of so many KiB, for root."""
    disk = tmp_path / "disk"

    def mount(kib: int) -> Path:
        disk.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs"]
        subprocess.run(["mount", *options, str(disk)], check=True)
        return disk

    yield mount
    # Lazily: a runner may still be on its way out.
    subprocess.run(["umount", "-l", str(disk)], check=True)
