"""The demo, step by step. Each step is timed and told before it starts."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sleap_rtc
from sleap_rtc.demo.configs import write_configs
from sleap_rtc.demo.interrupts import Interrupts
from sleap_rtc.demo.machines import Machine, end_trainings
from sleap_rtc.engines.registry import engine as find_engine
from sleap_rtc.errors import EngineMissing, SleapRtcError
from sleap_rtc.files.durable import write_replacing

WORKER: Final = "gpu-box"
ROOM: Final = "lab"

Say = Callable[[str], None]


class Demo:
    """One run of the main job.

    Args:
        root: Everything is kept below it; a second run goes on with what is there.
        engine: ``sleap-nn`` or ``tiny``.
        say: Shows a line to the person.
        network: What to tell of the network that is used.
    """

    def __init__(self, root: Path, *, engine: str, say: Say, network: str) -> None:
        self._root = root
        self._engine = engine
        self._say = say
        self._logs = root / "logs"
        self._interrupts = Interrupts()
        self._laptop = Machine(root / "laptop", self._logs, self._interrupts)
        self._box = Machine(root / "gpu-box", self._logs, self._interrupts)
        self._host = Machine(root / "server", self._logs, self._interrupts)
        self._step = 0
        self._summary: dict[str, Any] = {
            "sleap_rtc": sleap_rtc.__version__,
            "engine": engine,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "network": network,
            "steps": [],
        }

    def run(self) -> Path:
        """Do everything; returns the path of ``summary.json``.

        Raises:
            SleapRtcError: A step failed.
            KeyboardInterrupt: It was interrupted; what it had started is ended.
        """
        with self._interrupts:
            return self._run()

    def _run(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            with self._timed("look for the engine"):
                version = find_engine(self._engine).find().version
                self._note(engine_version=version)
            data = self._make_data()
            configs = write_configs(self._root / "configs" / self._engine, self._engine, data.nodes)
            self._start_server_and_room()
            alias = self._train(data.package, configs)
            self._track(alias, data, remote=False)
            self._track(alias, data, remote=True)
            self._summary["outcome"] = "completed"
        except SleapRtcError as error:
            self._summary["outcome"] = f"failed: {error}"
            raise
        finally:
            with self._interrupts.held():
                for machine in (self._box, self._host):
                    machine.stop()
                if self._summary.get("outcome") != "completed":
                    end_trainings(self._box.home)
                self._summary["seconds"] = round(time.monotonic() - began, 2)
                path = self._root / "summary.json"
                text = json.dumps(self._summary, indent=2, ensure_ascii=False) + "\n"
                write_replacing(path, text.encode("utf-8"))
        self._tell_more(alias)
        return path

    # ── steps ────────────────────────────────────────────────────────────────

    def _make_data(self) -> Data:
        from sleap_rtc.media.synthetic import NODES, SyntheticSpec, make_dataset  # noqa: PLC0415

        spec = SyntheticSpec()
        folder = self._root / "data"
        with self._timed("make a labelled data set: two moving animals with known points"):
            if not (folder / "truth.slp").is_file():
                new = folder.with_name("data.new")
                shutil.rmtree(new, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)
                make_dataset(new, spec)
                new.rename(folder)
            data = Data(folder, NODES)
            self._note(
                labelled_frames=spec.labelled,
                video_frames=spec.frames,
                bytes=data.package.stat().st_size,
            )
        return data

    def _start_server_and_room(self) -> None:
        with self._timed("start a server, make a room, start a worker"):
            port = self._port()
            url = f"http://127.0.0.1:{port}"
            serving = ("server", "--data-dir", str(self._root / "server" / "data"))
            ports = ("--port", str(port), "--stun-port", "0")
            self._host.start("server", *serving, *ports, until=url)
            if not (self._root / "laptop" / "rooms").is_dir():
                code = self._host.run("server-code", *serving[1:], "--quiet").strip()
                self._laptop.run("login", url, "--code-file", "-", "--quiet", secret=code)
                self._laptop.run("room", "create", ROOM, "--server", url, "--quiet")
            room = ROOM
            if not (self._root / "gpu-box" / "devices").is_dir():
                room = self._laptop.run("room", "invite", ROOM, "--role", "worker", "-q").strip()
            self._box.start(
                WORKER,
                *("worker", "--room", room, "--name", WORKER, "--dir", str(self._box.home)),
                until="online",
            )
            self._note(server=url, room=ROOM, worker=WORKER)

    def _train(self, labels: Path, configs: tuple[Path, Path]) -> str:
        alias = self._free_alias()
        with self._timed(f"train a top-down pair on {WORKER} with {self._engine}"):
            arguments = ["train", str(labels), "--room", ROOM, "--worker", WORKER]
            for config in configs:
                arguments += ["--config", str(config)]
            arguments += ["--engine", self._engine, "--alias", alias, "--yes", "--json"]
            result = json.loads(self._laptop.run(*arguments))
            self._note(alias=alias, job=result["job"], models=result["models"])
        return alias

    def _track(self, alias: str, data: Data, *, remote: bool) -> None:
        from sleap_rtc.media.compare import compare  # noqa: PLC0415
        from sleap_rtc.media.render import render_frame  # noqa: PLC0415

        where = "remote" if remote else "local"
        folder = self._root / "predictions" / alias
        output = folder / f"{where}.slp"
        shown = f"on {WORKER}" if remote else "on this machine"
        with self._timed(f"track the video {shown}, measure it against the known points"):
            arguments = ["track", "--model", alias, str(data.video), "-o", str(output)]
            if remote:
                arguments += ["--remote", "--room", ROOM, "--worker", WORKER]
            self._laptop.run(*arguments, "--json")
            found = compare(output, data.truth)
            picture = output.with_suffix(".png")
            frame = render_frame(output, picture, video=data.video)
            self._note(
                predictions=str(output),
                picture=str(picture),
                frame=frame,
                mean_error_px=found.mean_error_px,
                median_error_px=found.median_error_px,
                animals_found=found.found,
                extra=found.extra,
                frames=found.frames,
            )
            if found.mean_error_px is None:
                raise SleapRtcError(message="The models found no animal in the video.")
            self._say(
                f"    {found.found:.0%} of the animals found, "
                f"mean error {found.mean_error_px:.1f} px, {found.extra} found that aren't there; "
                f"see {picture}"
            )

    # ── small things ─────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        self._step += 1
        self._say(f"[{self._step}/6] {what}")
        began = time.monotonic()
        step: dict[str, Any] = {"step": what}
        self._summary["steps"].append(step)
        try:
            yield
        finally:
            step["seconds"] = round(time.monotonic() - began, 2)
        self._say(f"    done in {step['seconds']:.1f} s")

    def _note(self, **figures: Any) -> None:
        self._summary["steps"][-1].update(figures)

    def _port(self) -> int:
        """The server's port: a free one the first time, and then the same, as its room knows it."""
        kept = self._root / "port"
        if kept.is_file():
            return int(kept.read_text(encoding="ascii"))
        with socket.socket() as free:
            # Best one below those that connections get: it is free when the demo is run again.
            for port in (*random.sample(range(20_000, 32_768), 50), 0):
                with contextlib.suppress(OSError):
                    free.bind(("127.0.0.1", port))
                    break
            port = int(free.getsockname()[1])
        kept.write_text(str(port), encoding="ascii")
        return port

    def _free_alias(self) -> str:
        taken = {
            entry["alias"]
            for entry in json.loads(self._laptop.run("list-models", "--json"))["models"]
            if entry["alias"]
        }
        names = {alias.partition(":")[0] for alias in taken}
        base = f"demo-{self._engine}"
        candidates = (base, *(f"{base}-v{n}" for n in range(2, 1000)))
        return next(name for name in candidates if name not in names)

    def _tell_more(self, alias: str) -> None:
        home = self._root / "laptop"
        total = self._summary["seconds"]
        # Made by `make demo`, the program is in an environment that isn't active.
        beside = Path(sys.executable).with_name("sleap-rtc")
        program = "sleap-rtc" if shutil.which("sleap-rtc") or not beside.is_file() else str(beside)
        self._say(f"\nAll of it took {total:.0f} s. What you can do now:")
        for line in (
            f"export SLEAP_RTC_HOME={home}",
            f"{program} list-models",
            f"{program} model-info {alias}:centroid",
            f"{program} track --model {alias} YOUR_VIDEO.mp4",
        ):
            self._say(f"    {line}")
        self._say(f"Figures: {self._root / 'summary.json'}")


class Data:
    """The made data set's files."""

    def __init__(self, folder: Path, nodes: tuple[str, ...]) -> None:
        self.nodes = nodes
        self.package = folder / "labels.pkg.slp"
        self.video = folder / "video.mp4"
        self.truth = folder / "truth.slp"


def needs_engine(engine: str) -> bool:
    """Whether the engine has to be installed first."""
    try:
        find_engine(engine).find()
    except EngineMissing:
        return True
    return False
