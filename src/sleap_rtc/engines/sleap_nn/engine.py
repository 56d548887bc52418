"""``sleap-nn`` as the worker sees it: a program in an environment of its own.

================  ==============================================================
command           what is done
================  ==============================================================
stop              ``{"command": "stop"}`` over ZMQ, until it is heard
cancel            SIGTERM to the group, SIGKILL after a while
pause, resume     SIGSTOP, SIGCONT
go on             a fresh run name, and ``resume_ckpt_path`` to our own checkpoint
================  ==============================================================

Models of SLEAP up to 1.4 (``training_config.json`` beside ``best_model.h5``) are
tracked with as well. The program only logs how many of their weights it took over,
and goes on with others made at random; so all of them is a part of success.

SIGINT is never sent: the trainer removes its output then. It ends with exit code 0
when it is terminated, so success is ``train_end`` *and* ``best.ckpt`` *and* epochs
done, early stopping allowed, or a stop that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from sleap_rtc.engines import configs
from sleap_rtc.engines.base import (
    Began,
    ConfigSummary,
    EngineEvent,
    Installation,
    Outcome,
    Run,
    Said,
    Stepped,
    TrackPlan,
    TrainPlan,
)
from sleap_rtc.engines.process import (
    Ending,
    ProcessRun,
    disk_was_full,
    last_error,
    scrubbed,
)
from sleap_rtc.engines.sleap_nn import allowlist, environment, results
from sleap_rtc.engines.sleap_nn.places import Places, default_places
from sleap_rtc.engines.sleap_nn.progress import Channel, Reading
from sleap_rtc.errors import FilesMissing, InvalidConfig

_MODULE: Final = "sleap_nn.cli"
_RUN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DEVICES: Final = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
_ASK_AGAIN_S: Final = 0.25
_CONFIG: Final = "training_config.yaml"
_OLD_CONFIG: Final = "training_config.json"
_OLD_WEIGHTS: Final = "best_model.h5"
_TAKEN_OVER: Final = re.compile(r"mapped (\d+)/(\d+) PyTorch parameters from legacy weights")
_EXTRA: Final = {
    "MPLBACKEND": "Agg",
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "COLUMNS": "200",
}

# Run in the engine's environment, which has h5py: facts are added to the file's own provenance.
_PROVENANCE: Final = """
import h5py, json, sys
with h5py.File(sys.argv[1], "a") as file:
    attributes = file["metadata"].attrs
    metadata = json.loads(attributes["json"])
    known = metadata.get("provenance") or {}
    if "provenance_json" in file:
        known |= json.loads(file["provenance_json"][()])
        del file["provenance_json"]
    metadata["provenance"] = known | json.loads(sys.argv[2])
    attributes["json"] = json.dumps(metadata)
"""

Kind = Literal["succeeded", "stopped", "cancelled", "failed", "died"]


class SleapNNEngine:
    """The engine ``sleap-nn``."""

    name = environment.NAME

    def __init__(self, places: Places | None = None) -> None:
        self._places = default_places() if places is None else places

    def find(self) -> Installation:
        """Where it is installed.

        Raises:
            EngineMissing: Not installed, or half-made.
        """
        return environment.find(self._places)

    def read_config(self, text: str, *, where: str) -> ConfigSummary:
        """Read a configuration, with every key that a worker refuses.

        Raises:
            InvalidConfig: Not a configuration of this engine.
        """
        return allowlist.read(text, where=where)

    async def start_training(self, plan: TrainPlan) -> Run:
        """Start to train.

        Raises:
            EngineMissing: Not installed.
            InvalidConfig: A configuration that is refused, by key and reason; or of another model.
            FilesMissing: No label file, or no checkpoint to go on from.
        """
        installation = await asyncio.to_thread(self.find)
        summary = self.read_config(plan.config, where="the configuration")
        if summary.model_type != plan.model_type:
            why = f"it is for a {summary.model_type} model, not {plan.model_type}"
            raise InvalidConfig(where="the configuration", why=why)
        if _RUN_NAME.fullmatch(plan.run_name) is None:
            raise InvalidConfig(where="the run's name", why=f"{plan.run_name!r} can't be a folder")
        _need(plan.labels)
        plan.directory.mkdir(parents=True, exist_ok=True)
        resume_from = None
        if plan.resume_from is not None:
            resume_from = results.carry(plan.resume_from, plan.directory)
            if resume_from is None:
                raise FilesMissing(name=plan.resume_from.name, files=results.LAST)
        channel = Channel()
        try:
            rebuilt = allowlist.rebuild(
                plan.config,
                allowlist.WorkerSettings(
                    labels=plan.labels,
                    val_labels=plan.val_labels,
                    directory=plan.directory / "run",
                    run_name=plan.run_name,
                    accelerator=_DEVICES.get(plan.device, "auto"),
                    publish_port=channel.publish_port,
                    controller_port=channel.controller_port,
                    resume_from=resume_from,
                ),
                where="the configuration",
            )
            config = plan.directory / "config.yaml"
            config.write_text(configs.dump_config(rebuilt.config), encoding="utf-8")
            watcher = _Training(plan, summary, rebuilt, channel)
            return await self._start(
                [str(installation.python), "-I", "-m", _MODULE, "train", str(config)],
                plan.directory,
                watcher,
                threads=plan.threads,
            )
        except BaseException:
            await channel.close()
            raise

    def inspect(self, plan: TrainPlan) -> Outcome:
        """What a run left in ``plan.directory`` that nobody saw end."""
        summary = self.read_config(plan.config, where="the configuration")
        found = _left(plan, summary, "died", {})
        return msgspec.structs.replace(found, reason="The trainer was ended with its runner.")

    async def start_tracking(self, plan: TrackPlan) -> Run:
        """Start to track.

        Raises:
            EngineMissing: Not installed.
            FilesMissing: A model without its files, or no video.
        """
        installation = await asyncio.to_thread(self.find)
        for model in plan.models:
            names = (_OLD_WEIGHTS,) if _is_old(model) else (results.BEST, _CONFIG)
            missing = [name for name in names if not (model / name).exists()]
            if missing:
                raise FilesMissing(name=model.name, files=", ".join(missing))
        _need(plan.video)
        part = plan.output.with_name(f".part-{plan.output.name}")
        command = [str(installation.python), "-I", "-m", _MODULE, "predict", "--gui"]
        command += ["--data_path", str(plan.video), "--output_path", str(part)]
        command += ["--device", plan.device]
        for model in plan.models:
            command += ["--model_paths", str(model)]
        if plan.frames is not None:
            command += ["--frames", f"{plan.frames[0]}-{plan.frames[1]}"]
        if plan.tracking:
            command.append("--tracking")
        watcher = _Tracking(plan, part, installation, self._environment(plan.threads))
        return await self._start(command, plan.output.parent, watcher, threads=plan.threads)

    async def _start(
        self, command: list[str], directory: Path, watcher: _Training | _Tracking, *, threads: int
    ) -> ProcessRun:
        return await ProcessRun.start(
            command,
            directory=directory,
            environment=self._environment(threads),
            log=watcher.log,
            watcher=watcher,
        )

    def _environment(self, threads: int) -> dict[str, str]:
        """What every process in the engine's environment is given."""
        home = self._places.home
        home.mkdir(parents=True, exist_ok=True)
        return scrubbed(os.environ, home=home, threads=threads, extra=_EXTRA)


def _is_old(model: Path) -> bool:
    """Whether a model's directory is one of SLEAP up to 1.4, as the program decides it."""
    return not (model / _CONFIG).exists() and (model / _OLD_CONFIG).exists()


def _need(path: Path) -> None:
    if not path.is_file():
        raise FilesMissing(name=path.name, files=str(path))


class _Training:
    """A training: its progress by ZMQ, and what its directory holds in the end."""

    def __init__(
        self,
        plan: TrainPlan,
        summary: ConfigSummary,
        rebuilt: allowlist.Rebuilt,
        channel: Channel,
    ) -> None:
        self.log = plan.directory / "trainer.log"
        self._plan = plan
        self._summary = summary
        self._replaced = rebuilt.replaced
        self._plateau = _may_end_early(rebuilt.config)
        self._channel = channel
        self._stopper: asyncio.Task[None] | None = None
        self._run: ProcessRun | None = None
        self._reading = Reading(
            planned=summary.epochs,
            batches=summary.hyperparameters.get("steps_per_epoch"),
            rate=_first_rate(rebuilt.config),
        )

    async def started(self, run: ProcessRun) -> None:
        self._run = run
        if self._replaced:
            keys = ", ".join(self._replaced)
            run.emit(Said(line=f"Set by the worker, whatever the configuration says: {keys}"))
        self._channel.listen(self._on_message)

    def on_line(self, line: str, *, error: bool) -> Iterable[EngineEvent]:
        return [Said(line=line)]

    def _on_message(self, message: dict[str, Any]) -> None:
        for event in self._reading.feed(message):
            if self._run is not None:
                self._run.emit(event)

    async def request_stop(self) -> None:
        if self._stopper is None:
            self._stopper = asyncio.create_task(self._keep_asking())

    async def _keep_asking(self) -> None:
        # The trainer connects seconds after its start, and what is sent before that is lost.
        while not self._reading.finished:
            await self._channel.stop_training()
            await asyncio.sleep(_ASK_AGAIN_S)

    async def drain(self) -> None:
        if self._stopper is not None:
            self._stopper.cancel()
            await asyncio.wait([self._stopper])
        await self._channel.drain()

    def conclude(self, ending: Ending) -> Outcome:
        has_model = results.best_checkpoint(self._plan.directory) is not None
        kind, reason = self._judge(ending, has_model=has_model)
        found = _left(self._plan, self._summary, kind, self._reading.train_losses)
        epochs = self._reading.epochs if found.last is None else found.epochs
        return msgspec.structs.replace(
            found, epochs=epochs, reason=reason, log_tail=ending.log_tail
        )

    def _judge(self, ending: Ending, *, has_model: bool) -> tuple[Kind, str]:
        if ending.cancelled:
            return "cancelled", "It was cancelled."
        reached = self._summary.epochs is None or self._reading.epochs == self._summary.epochs
        if self._reading.finished and has_model:
            if reached or (self._plateau and not ending.stop_asked):
                return "succeeded", ""
            if ending.stop_asked:
                return "stopped", ""
        if ending.returncode > 0:
            why = last_error(ending.log_tail) or f"exit code {ending.returncode}"
            kind: Kind = "died" if disk_was_full(ending.log_tail) else "failed"
            return kind, f"sleap-nn failed: {why}"
        if not self._reading.finished:
            # Terminated from outside it ends with 0, having said nothing of an end.
            how = f"signal {-ending.returncode}" if ending.returncode else "before its end"
            return "died", f"The trainer was ended from outside ({how})."
        return "failed", "sleap-nn ended without a checkpoint."


def _left(
    plan: TrainPlan, summary: ConfigSummary, kind: Kind, losses: Mapping[int, float | None]
) -> Outcome:
    """What a training left in its directory."""
    directory = plan.directory
    is_usable = kind in ("succeeded", "stopped")
    files = results.assemble(directory, plan.run_name, losses, with_last=not is_usable)
    last = results.find(directory, results.LAST)
    epochs = None if last is None else results.epochs_in(last)
    return Outcome(
        kind=kind,
        epochs=epochs,
        best=directory / results.BEST if results.BEST in files else None,
        last=directory / results.LAST if results.LAST in files else last,
        metrics=results.metrics(directory, epochs),
        hyperparameters=summary.hyperparameters,
        files=files,
    )


def _first_rate(config: dict[str, Any]) -> float | None:
    """The learning rate of the first epoch: the configured one, but for a warm-up."""
    schedules = configs.at(config, ("trainer_config", "lr_scheduler"))
    used = schedules if isinstance(schedules, dict) else {}
    if any(used.get(name) for name in ("cosine_annealing_warmup", "linear_warmup_linear_decay")):
        return None
    rate = configs.at(config, ("trainer_config", "optimizer", "lr"))
    return float(rate) if isinstance(rate, (int, float)) else None


def _may_end_early(config: dict[str, Any]) -> bool:
    """Whether the trainer ends when nothing improves any more: it does unless told not to."""
    path = ("trainer_config", "early_stopping", "stop_training_on_plateau")
    return configs.at(config, path) is not False


class _Tracking:
    """A tracking: progress as JSON lines on standard output."""

    def __init__(
        self,
        plan: TrackPlan,
        part: Path,
        installation: Installation,
        environment: Mapping[str, str],
    ) -> None:
        self.log = plan.output.with_name(f"{plan.output.name}.log")
        self._plan = plan
        self._part = part
        self._python = installation.python
        self._environment = environment
        self._has_begun = False
        self._is_written = False
        self._old = sum(map(_is_old, plan.models))
        self._taken_over: list[tuple[int, int]] = []

    async def started(self, run: ProcessRun) -> None:
        """All that it says comes by its output."""

    async def request_stop(self) -> None:
        """Half the predictions are no result: nothing is done."""

    def on_line(self, line: str, *, error: bool) -> Iterable[EngineEvent]:
        if error or not line.startswith("{"):
            told = _TAKEN_OVER.search(line) if self._old else None
            if told is not None:
                self._taken_over.append((int(told[1]), int(told[2])))
            return [Said(line=line)]
        try:
            message = msgspec.json.decode(line.encode(), type=_Progress)
        except msgspec.MsgspecError:
            return [Said(line=line)]
        events: list[EngineEvent] = []
        if not self._has_begun:
            self._has_begun = True
            events.append(Began(batches=message.n_total))
        step = Stepped(done=message.n_processed, total=message.n_total, rate=message.rate)
        return [*events, step]

    async def drain(self) -> None:
        """Write provenance into the predictions, and give them their name."""
        if not self._part.is_file() or not self._has_begun:
            return
        facts = {**self._plan.provenance, "engine": environment.NAME}
        process = await asyncio.create_subprocess_exec(
            *(str(self._python), "-I", "-c", _PROVENANCE, str(self._part), json.dumps(facts)),
            cwd=self._part.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(self._environment),
        )
        self._is_written = await process.wait() == 0

    def conclude(self, ending: Ending) -> Outcome:
        kind, reason = self._judge(ending)
        if kind == "succeeded":
            self._part.replace(self._plan.output)
        else:
            self._part.unlink(missing_ok=True)
        return Outcome(kind=kind, reason=reason, log_tail=ending.log_tail)

    def _judge(self, ending: Ending) -> tuple[Kind, str]:
        if ending.cancelled:
            return "cancelled", "It was cancelled."
        if ending.returncode == 0 and self._is_written:
            lacking = self._not_taken_over()
            return ("failed", lacking) if lacking else ("succeeded", "")
        if ending.returncode < 0:
            return "died", f"sleap-nn was ended from outside (signal {-ending.returncode})."
        why = last_error(ending.log_tail) or "it wrote no predictions"
        return "died" if disk_was_full(ending.log_tail) else "failed", f"sleap-nn failed: {why}"

    def _not_taken_over(self) -> str:
        """Why predictions of models of SLEAP up to 1.4 are worth nothing; empty if they are."""
        whole = sum(taken == of for taken, of in self._taken_over)
        if whole == len(self._taken_over) >= self._old:
            return ""
        partly = next((f"{n} of {of}" for n, of in self._taken_over if n != of), "not all")
        return (
            f"sleap-nn took over {partly} weights of a model of SLEAP up to 1.4, "
            "of which it knows UNets alone."
        )


class _Progress(msgspec.Struct):
    """A line of progress while predicting."""

    n_processed: int
    n_total: int
    rate: float | None = None
