"""The command line in this process, with streams that can be looked at, and as processes."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from blake3 import blake3
from loguru import logger

from sleap_rtc.cli.app import App
from sleap_rtc.cli.main import run
from sleap_rtc.cli.output import Output
from sleap_rtc.client.submitted import SubmittedJob, SubmittedJobs
from sleap_rtc.domain.ids import make_uuid7
from sleap_rtc.domain.models import ModelFile, ModelRecord, Training
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec, TrainStage
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.media.synthetic import Dataset, SyntheticSpec, make_dataset
from sleap_rtc.testing import programs

LIMIT_S = 120.0


class Stream(io.StringIO):
    """A stream, perhaps a terminal's."""

    def __init__(self, text: str = "", *, terminal: bool = False) -> None:
        super().__init__(text)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What ``--json`` printed: alone on standard output."""
        return json.loads(self.out)


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_output() -> Callable[..., Output]:
    """An output whose streams are kept: ``make_output(terminal=…, stdin=…, environment=…)``."""

    def make(
        *,
        terminal: bool = False,
        stdin: str = "",
        environment: dict[str, str] | None = None,
        **more,
    ) -> Output:
        return Output(
            stdout=Stream(terminal=terminal),
            stderr=Stream(terminal=terminal),
            stdin=Stream(stdin, terminal=terminal),
            environment=environment or {},
            **more,
        )

    return make


@pytest.fixture
def cli(make_output: Callable[..., Output]) -> Iterator[Callable[..., Result]]:
    """Run a command in this process: ``cli("room", "list", terminal=…, stdin=…)``."""
    handlers = logging.root.handlers[:]

    def invoke(*arguments: object, **streams: Any) -> Result:
        out = make_output(**streams)
        code = run([str(argument) for argument in arguments], App(out))
        return Result(code, out.stdout.getvalue(), out.stderr.getvalue())

    yield invoke
    logger.remove()
    logging.root.handlers[:] = handlers


class Process:
    """``sleap-rtc`` as a process of its own, with a home of its own."""

    def __init__(self, home: Path, *arguments: object, **env: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SLEAP_RTC_")}
        for name in ("SLEAP_RTC_ENGINES", "SLEAP_RTC_NETNS"):
            if name in os.environ:
                kept[name] = os.environ[name]
        kept |= {"SLEAP_RTC_HOME": str(home), "OMP_NUM_THREADS": "1"} | env
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "sleap_rtc", *map(str, arguments)],
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._heard = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in self.popen.stderr:
            with self._heard:
                self.said.append(line)
                self._heard.notify_all()
        with self._heard:
            self.said.append("")
            self._heard.notify_all()

    def until(self, text: str) -> None:
        """Wait until it has said something on standard error."""
        with self._heard:
            self._heard.wait_for(
                lambda: any(text in line for line in self.said) or "" in self.said, LIMIT_S
            )
        assert any(text in line for line in self.said), "".join(self.said)

    def first_document(self) -> Any:
        """The JSON document that it prints when it is ready, while it goes on."""
        text = ""
        for line in self.popen.stdout:
            text += line
            if line == "}\n":
                return json.loads(text)
        raise AssertionError("".join(self.said))

    def interrupt(self) -> None:
        self.popen.send_signal(signal.SIGINT)

    def terminate(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.end().code

    def end(self, stdin: str | None = None) -> Result:
        """Wait for its end."""
        try:
            if stdin is not None:
                self.popen.stdin.write(stdin)
            self.popen.stdin.close()
            out = self.popen.stdout.read()
            code = self.popen.wait(LIMIT_S)
        finally:
            self.close()
        return Result(code, out, "".join(self.said))

    def close(self) -> None:
        programs.close(self.popen, self._listener, within_s=LIMIT_S)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start ``sleap-rtc`` as a process: ``start(home, "room", "list")``."""
    processes: list[Process] = []

    def begin(home: Path, *arguments: object, **env: str) -> Process:
        processes.append(Process(home, *arguments, **env))
        return processes[-1]

    yield begin
    for process in processes:
        process.close()


class Host:
    """A server, started by its command, on 127.0.0.1."""

    def __init__(self, process: Process, told: Any) -> None:
        self.process, self.url, self.code = process, told["url"], told["setup_code"]
        self.data_dir = told["data_dir"]


@pytest.fixture
def host(start: Callable[..., Process], tmp_path: Path) -> Host:
    """A running server."""
    where = ("--data-dir", tmp_path / "data", "--port", 0, "--stun-port", 0)
    process = start(tmp_path / "host", "server", *where, "--json")
    return Host(process, process.first_document())


# ── a library and jobs, without a network ────────────────────────────────────


class Home:
    """A home with models and jobs in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def library(self) -> Registry:
        return Registry(self.root / "models")

    @property
    def jobs(self) -> SubmittedJobs:
        return SubmittedJobs(self.root / "jobs")

    def model(
        self,
        name: str = "fly",
        *,
        model_type: str = "centroid",
        files: bool = True,
        extra: dict[str, bytes] | None = None,
        **changes: Any,
    ) -> Entry:
        """Put a model into the library; ``extra`` are files beside its checkpoint."""
        contents = {"best.ckpt": f"weights of {name} {model_type}".encode()} | (extra or {})
        listed = tuple(
            ModelFile(path=path, size=len(content), blake3=blake3(content).hexdigest())
            for path, content in contents.items()
        )
        given = {
            "id": blake3(f"{name} {model_type}".encode()).hexdigest()[:8],
            "name": name,
            "model_type": model_type,
            "status": "completed",
            "source": "worker-training",
            "created_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
            "training": Training(engine="tiny", engine_version="0.1.0", worker="gpu-1"),
        }
        if files:
            given |= {"files": listed, "checkpoint": "best.ckpt", "package": "ab" * 32}
        record = ModelRecord(**(given | changes))
        with self.library as library:
            if not files:
                return library.register(record)
            folder = library.incoming / "made"
            folder.mkdir()
            for path, content in contents.items():
                (folder / path).write_bytes(content)
            return library.place(folder, record)

    def alias(self, alias: str, *models: str) -> None:
        with self.library as library:
            library.set_alias(alias, *models)

    def job(self, number: int = 1, *, track: bool = False, **changes: Any) -> SubmittedJob:
        """A job that this machine submitted."""
        stage = TrainStage(config="configs/0/c.yaml", model_type="centroid", run_name="run")
        work: TrainSpec | TrackSpec = TrainSpec(
            labels="labels/a.slp", stages=(stage,), dataset_name="a.slp", dataset_hash="0" * 64
        )
        if track:
            work = TrackSpec(
                models=(ModelRef(id="0123abcd", package="ab" * 32),), videos=("videos/0/v.mp4",)
            )
        spec = JobSpec(
            id=make_uuid7(unix_ms=1_000 + number, randomness=bytes([number]) * 10),
            engine="tiny",
            work=work,
            inputs=PackageRef(id="1" * 64, size=1, files=1, listing=50),
            room="a" * 32,
            name="v.mp4" if track else "a.slp",
        )
        job = SubmittedJob(
            spec=spec,
            room="a" * 32,
            worker="gpu-1",
            device="2" * 64,
            submitted_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
            files={"videos/0/v.mp4": "v.mp4"} if track else {"labels/a.slp": "a.slp"},
        )
        job = msgspec.structs.replace(job, **changes)
        self.jobs.add(job)
        return job


@pytest.fixture
def home(own_home: Path) -> Home:
    """This test's home."""
    return Home(own_home / ".sleap-rtc")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A small labelled data set with its video."""
    spec = SyntheticSpec(size=(64, 64), animals=1, labelled=4, frames=6)
    return make_dataset(tmp_path_factory.mktemp("data"), spec)


@pytest.fixture
def dataset(data: Dataset) -> Path:
    """Its package."""
    return data.package


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Write a training configuration for ``tiny``."""

    def write(head: str = "centroid", *, epochs: int = 3, steps: int = 5) -> Path:
        path = tmp_path / f"{head}.yaml"
        plain = {
            "data_config": {},
            "model_config": {
                "backbone_config": {"unet": {"filters": 8}},
                "head_configs": {head: {"confmaps": {"sigma": 2.5}}},
            },
            "trainer_config": {
                "max_epochs": epochs,
                "train_steps_per_epoch": steps,
                "train_data_loader": {"batch_size": 1},
                "seed": 1,
            },
        }
        path.write_text(json.dumps(plain))
        return path

    return write


@pytest.fixture
def config(write_config: Callable[..., Path]) -> Path:
    """A quick one."""
    return write_config()
