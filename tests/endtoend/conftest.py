"""Server, worker and client as separate processes, which tests kill, cut off and starve.

::

    server     sleap_rtc.testing.server
    worker     worker_program.py, with a directory of its own
    client     client_program.py, with a home of its own; tells line by line what happens

What is left on the disks is read by the test itself.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.client.synchronous import Client
from sleap_rtc.config import Settings, load
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.values import decode
from sleap_rtc.engines.process import identify
from sleap_rtc.jobs.events import StateChanged
from sleap_rtc.jobs.lifecycle import JobView, replay
from sleap_rtc.library.registry import Registry
from sleap_rtc.media.synthetic import Dataset, SyntheticSpec, make_dataset
from sleap_rtc.server.app import new_code
from sleap_rtc.testing import netns, programs
from sleap_rtc.testing.server import ServerProcess
from sleap_rtc.worker.job_directory import JobDirectory, JobStore
from sleap_rtc.worker.runner.client import attach
from sleap_rtc.worker.runner.logfile import LogReader
from sleap_rtc.worker.runner.plan import TrainerFile

HERE = Path(__file__).parent
LIMIT_S = 120.0
LARGE = 32 * 1024 * 1024
"""Bytes of a label file that takes long enough to send to be interrupted, if read slowly."""

Line = dict[str, Any]


class Program:
    """A process that says lines of JSON."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self.lines: list[Line] = []
        self.log = log
        self._queue: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def until(self, fits: Callable[[Line], object] | str, *, within: float = LIMIT_S) -> Line:
        """The next line of this kind, or that fits."""
        wanted = (lambda line: line["kind"] == fits) if isinstance(fits, str) else fits
        end = time.monotonic() + within
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(self._told("it never came")) from None
            if line is None:
                raise AssertionError(self._told("it ended before"))
            self.lines.append(line)
            if wanted(line):
                return line

    def ended(self, *, within: float = LIMIT_S) -> int:
        """Its exit code, when it has ended by itself."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._told("it did not end")) from None
        self._drain()
        return code

    def done(self) -> Line:
        """Its last line, when it has ended well."""
        code = self.ended()
        assert code == 0, self._told(f"it ended with {code}")
        return self.lines[-1] if self.lines else {}

    def refused(self) -> tuple[int, Line]:
        """Its exit code and its error."""
        code = self.ended()
        assert code != 0, self._told("it ended well")
        assert self.lines[-1]["kind"] == "error", self._told(f"it ended with {code}")
        return code, self.lines[-1]

    def wake(self) -> None:
        """Give it the line that it waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self.process.wait(LIMIT_S)
        self._drain()

    def terminate(self) -> int:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def of(self, kind: str) -> list[Line]:
        return [line for line in self.lines if line["kind"] == kind]

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        programs.close(self.process, self._reader, within_s=LIMIT_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def _drain(self) -> None:
        self._reader.join(LIMIT_S)
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)

    def _told(self, what: str) -> str:
        last = "\n".join(map(str, self.lines[-8:]))
        log = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
        return f"{what}; {self.log.name} said:\n{last}\nand logged:\n{log}"


class Machine:
    """One computer: a home, and perhaps a network of its own that can be cut."""

    def __init__(self, lab: Lab, name: str, home: Path) -> None:
        self.lab, self.name, self.home = lab, name, home
        self.network: Network | None = None

    def start(self, *command: str, **env: str) -> Program:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SLEAP_RTC_")}
        kept |= {"SLEAP_RTC_HOME": str(self.home), "SLEAP_RTC_NAME": self.name}
        kept |= {"SLEAP_RTC_ENGINES": str(self.lab.root / "engines"), "OMP_NUM_THREADS": "1"}
        # The disks that tests make are small.
        kept |= {"SLEAP_RTC_INSECURE": "1", "SLEAP_RTC_WORKER_KEEP_FREE": "0"} | env
        arguments = [sys.executable, *command]
        if self.network is not None:
            arguments = [sys.executable, str(HERE / "in_network.py"), *arguments]
        program = Program(arguments, kept, self.lab.root / f"{self.name}.log")
        self.lab.programs.append(program)
        if self.network is not None:
            program.until("network")
            self.network.plug_in(program.pid)
            program.wake()
        return program


class ClientMachine(Machine):
    """A person's."""

    @property
    def settings(self) -> Settings:
        return load({"home": self.home, "name": self.name, "insecure": True})

    @property
    def library(self) -> Registry:
        return Registry(self.home / "models", index_dir=self.lab.root / f"{self.name}-index")

    def do(self, what: str, **asked: Any) -> Program:
        """Have it do something; ``env`` is for its environment, the rest is told to it."""
        env = asked.pop("env", {})
        told = json.dumps({"do": what, **asked})
        return self.start(str(HERE / "client_program.py"), told, **env)

    def train(
        self, *configs: Path, labels: Path | None = None, do: str = "train", **asked: Any
    ) -> Program:
        given = labels or self.lab.data.package
        return self.do(do, labels=str(given), configs=[str(c) for c in configs], **asked)

    def unchecked(self, config: Path, **asked: Any) -> Program:
        """The same by a client that looks at nothing before it is sent."""
        return self.train(config, do="unchecked", **asked)

    def attach(self, job: str, **asked: Any) -> Program:
        return self.do("attach", job=job, **asked)

    def left(self) -> list[str]:
        """What lies about of models and predictions that aren't whole."""
        return below(self.home / "models" / ".incoming") + below(self.home / "incoming")

    def models(self) -> dict[str, ModelRecord]:
        """What is in the library, by type of model."""
        with self.library as library:
            return {entry.record.model_type: entry.record for entry in library.list().entries}


class WorkerMachine(Machine):
    """One with a worker; ``home`` is the worker's directory."""

    def __init__(self, lab: Lab, name: str, directory: Path) -> None:
        super().__init__(lab, name, lab.root / f"{name}-home")
        self.directory = directory
        self.room = ""
        self.daemon: Program

    def begin(self, *, ready: bool = True, **env: str) -> Program:
        """Start the daemon; again on the same directory it is the same worker."""
        self.daemon = self.start(
            str(HERE / "worker_program.py"),
            self.room,
            self.name,
            SLEAP_RTC_WORKER_DIR=str(self.directory),
            **env,
        )
        if ready:
            self.daemon.until("ready")
        self.room = ""  # from now on it is in the room
        return self.daemon

    def job(self, job_id: str) -> JobDirectory:
        return JobStore(self.directory / "jobs").get(job_id)

    def view(self, job_id: str) -> JobView:
        log = LogReader(self.job(job_id).log)
        view = JobView()
        while events := log.read():
            view = replay(events, view)
        return view

    def states(self, job_id: str) -> list[str]:
        """Every state that the job was in."""
        log, found = LogReader(self.job(job_id).log), []
        while events := log.read():
            found += [str(e.body.state) for e in events if isinstance(e.body, StateChanged)]
        return found

    def trainer(self, job_id: str) -> int:
        """The trainer's process."""
        path = self.job(job_id).trainer
        return decode(TrainerFile, path.read_bytes(), what=str(path)).process.pid

    def runner(self, job_id: str) -> int:
        handle = attach(self.job(job_id))
        assert handle is not None
        return handle.process.pid

    def records(self) -> dict[str, ModelRecord]:
        """What is in the worker's library, by type of model."""
        index = self.lab.root / f"{self.name}-index"
        with Registry(self.directory / "models", index_dir=index) as library:
            return {entry.record.model_type: entry.record for entry in library.list().entries}

    def left(self) -> list[str]:
        """What lies about of datasets that aren't whole."""
        return below(self.directory / "incoming")

    def close(self) -> None:
        """End the runners, which outlive their daemon."""
        for job_id in JobStore(self.directory / "jobs").ids():
            with contextlib.suppress(Exception):
                handle = attach(self.job(job_id))
                if handle is not None and handle.alive:
                    os.kill(handle.process.pid, signal.SIGKILL)


class Network:
    """The cables of one machine: ``server`` to the server, ``peer`` to the other machine."""

    _made = itertools.count()

    def __init__(self, number: int, tag: int) -> None:
        self._net = f"10.77.{10 + number}"
        self._own = f"10.77.10.{number}"
        self._here = f"up{tag}-{number}"
        self._peer = f"pr{tag}-{number}"
        self._pid = 0

    @classmethod
    def pair(cls) -> tuple[Network, Network]:
        """Those of two machines."""
        tag = next(cls._made)
        both = cls(1, tag), cls(2, tag)
        ip("link", "add", both[0]._peer, "type", "veth", "peer", "name", both[1]._peer)
        return both

    def plug_in(self, pid: int) -> None:
        """Give a process that has just got a network of its own its cables."""
        self._pid = pid
        peer = ("link", "add", self._here, "type", "veth", "peer", "name", "server")
        ip(*peer, "netns", str(pid))
        ip("addr", "add", f"{self._net}.1/24", "dev", self._here)
        ip("link", "set", self._here, "up")
        ip("link", "set", self._peer, "netns", str(pid), "name", "peer")
        for command in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self._net}.2/24", "dev", "server"),
            ("addr", "add", f"{self._own}/24", "dev", "peer"),
        ):
            self._inside(*command)
        for cable in ("server", "peer"):
            self.mend(cable)

    def cut(self, cable: str = "peer") -> None:
        self._inside("link", "set", cable, "down")

    def mend(self, cable: str = "peer") -> None:
        self._inside("link", "set", cable, "up")
        if cable == "server":  # an interface that goes down forgets its routes
            self._inside("route", "add", f"{netns.ADDRESS}/32", "via", f"{self._net}.1")

    def close(self) -> None:
        # Those that went into a network end with it, some time after its last process.
        subprocess.run(("ip", "link", "del", self._here), capture_output=True, check=False)
        subprocess.run(("ip", "link", "del", self._peer), capture_output=True, check=False)

    def _inside(self, *command: str) -> None:
        run("nsenter", "--target", str(self._pid), "--net", "ip", *command)


def ip(*command: str) -> None:
    run("ip", *command)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


class Host:
    """A server, and where its data is."""

    def __init__(self, root: Path, address: str, **settings: Any) -> None:
        self.root, self.address = root, address
        self.process = self._process(settings)
        self.process.start()

    def begin_again(self, **settings: Any) -> None:
        """End it, and start it with other settings: it is the same server, at the same port."""
        port = self.process.port
        self.process.terminate()
        self.process = self._process(settings)
        self.process.port = port
        self.process.start()

    def _process(self, settings: dict[str, Any]) -> ServerProcess:
        here = {"server_host": self.address, "insecure": True}
        home = str(self.root / "server-home")
        return ServerProcess(self.root / "server", home=home, **here, **settings)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.process.port}"

    def code(self) -> str:
        """One that lets a device in."""
        return new_code(load({"server_data_dir": self.root / "server"}))


class Lab:
    """A room, one worker and one client at a server; more of each are easily had."""

    def __init__(self, root: Path, data: Dataset, host: Host) -> None:
        self.root, self.data, self.host = root, data, host
        self.programs: list[Program] = []
        self.client = ClientMachine(self, "laptop", root / "laptop")
        self.worker = WorkerMachine(self, "gpu-1", root / "gpu-1")
        self.workers = [self.worker]

    def open(self) -> None:
        """Make the room."""
        person = Client(self.client.settings)
        person.login(self.host.url, code=self.host.code())
        person.create_room("lab", server=self.host.url)
        self.worker.room = self.invite()

    def invite(self, role: str = "worker", **more: Any) -> str:
        return Client(self.client.settings).invite("lab", role=role, **more)

    def wire(self) -> None:
        """Put client and worker into networks of their own, joined by a cable between them."""
        self.client.network, self.worker.network = Network.pair()

    def machine(self, name: str) -> ClientMachine:
        """Another computer, of somebody who isn't in the room."""
        return ClientMachine(self, name, self.root / name)

    def person(self, name: str, link: str) -> ClientMachine:
        """Another person, who has joined the room."""
        machine = self.machine(name)
        Client(machine.settings).join(link)
        return machine

    def new_worker(self, name: str, room: str, *, directory: str | None = None) -> WorkerMachine:
        """Another worker, not started yet."""
        machine = WorkerMachine(self, name, self.root / (directory or name))
        machine.room = room
        self.workers.append(machine)
        return machine

    def config(self, head: str = "centroid", **changes: Any) -> Path:
        """Write a training configuration for ``tiny``."""
        found = {"epochs": 3, "steps": 5, "pad": 0} | changes
        path = self.root / f"{head}.yaml"
        plain = {
            "model_config": {
                "backbone_config": {"unet": {"filters": 8}},
                "head_configs": {head: {"confmaps": {"sigma": 2.5}}},
                **found.get("model", {}),
            },
            "trainer_config": {
                "max_epochs": found["epochs"],
                "train_steps_per_epoch": found["steps"],
                "train_data_loader": {"batch_size": 1},
                "seed": 1,
                **found.get("trainer", {}),
            },
            "data_config": {},
        }
        path.write_text(json.dumps(plain) + "\n# " + "x" * found["pad"] + "\n")
        return path

    def hold(self) -> Path:
        """A file that holds up a client that was told of it, until it is removed."""
        path = self.root / "hold"
        path.touch()
        return path

    def see(self, what: Callable[[], object], *, within: float = LIMIT_S) -> None:
        """Wait until something is so that no process tells."""
        end = time.monotonic() + within
        while not what():
            assert time.monotonic() < end, f"after {within} s still not: {what}"
            time.sleep(0.02)

    def see_end(self, pid: int) -> None:
        """Wait until a process that isn't this one's child has ended."""
        self.see(lambda: identify(pid) is None)

    def close(self) -> None:
        for program in self.programs:
            program.close()
        for worker in self.workers:
            worker.close()
        for machine in (self.client, self.worker):
            if machine.network is not None:
                machine.network.close()
        for name in ("incoming", "datasets"):
            shutil.rmtree(self.worker.directory / name, ignore_errors=True)


def below(folder: Path) -> list[str]:
    """Every file below a folder."""
    if not folder.is_dir():
        return []
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Each command of a page, with the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def run_commands(lab: Lab, page: Path, *, cwd: Path | None = None, **more: str) -> list[str]:
    """Run the commands of a page as they stand there: each works, and says what is shown."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLEAP_RTC_")}
    environment |= {"SLEAP_RTC_HOME": str(lab.client.home), "SLEAP_RTC_INSECURE": "1"} | more
    told = []
    for line, shown in commands(page):
        program, *arguments = shlex.split(line)
        assert program == "sleap-rtc"
        done = subprocess.run(
            [sys.executable, "-m", "sleap_rtc", *arguments],
            env=environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        for each in shown:
            form = ".*".join(re.escape(part.strip()) for part in each.split("…"))
            assert re.search(form, said), f"{line}: {each!r} is not among\n{said}"
        told.append(said)
    return told


@pytest.fixture
def run_page() -> Callable[..., list[str]]:
    return run_commands


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = SyntheticSpec(size=(64, 64), labelled=6, frames=12, animals=1)
    return make_dataset(tmp_path_factory.mktemp("data"), spec)


@pytest.fixture(scope="session")
def large(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same labels in a file that takes a while to send."""
    import h5py  # noqa: PLC0415 - only tests with much to send need it
    import numpy as np  # noqa: PLC0415

    path = tmp_path_factory.mktemp("large") / "large.pkg.slp"
    shutil.copyfile(data.package, path)
    noise = np.random.default_rng(1).integers(0, 256, LARGE // 8, dtype=np.uint8)
    with h5py.File(path, "a") as file:
        for part in range(8):
            file[f"padding/{part}"] = noise + np.uint8(part)
    yield path
    path.unlink()


@contextlib.contextmanager
def serving(root: Path, **settings: Any) -> Iterator[Host]:
    """A server with these settings."""
    address = netns.inside()
    if address is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    host = Host(root, address, **settings)
    try:
        yield host
    finally:
        with contextlib.suppress(RuntimeError):
            host.process.kill()


@contextlib.contextmanager
def opened(root: Path, data: Dataset, host: Host) -> Iterator[Lab]:
    """A lab at a server."""
    made = Lab(root, data, host)
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The server of all tests that leave it as it is; each has a room of its own there."""
    with serving(tmp_path_factory.mktemp("host")) as made:
        yield made


@pytest.fixture
def lab(tmp_path: Path, data: Dataset, host: Host) -> Iterator[Lab]:
    with opened(tmp_path, data, host) as made:
        yield made


@pytest.fixture
def own_lab(tmp_path: Path, data: Dataset) -> Iterator[Lab]:
    """One with a server of its own, which may be killed."""
    with serving(tmp_path) as host, opened(tmp_path, data, host) as made:
        yield made


@pytest.fixture(scope="module")
def make_lab() -> Callable[..., contextlib.AbstractContextManager[Lab]]:
    """Makes labs for a module's own fixtures: a folder, data, settings of the server."""

    @contextlib.contextmanager
    def make(root: Path, data: Dataset, **settings: Any) -> Iterator[Lab]:
        with serving(root, **settings) as host, opened(root, data, host) as made:
            yield made

    return make
