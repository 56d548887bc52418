"""What a person sees of a job that is followed: a pure function of what happened.

On a terminal a few lines are redrawn, milestones stay above them; all fit into
80 columns::

    gpu-1 has the data
    Training 1 of 2: flies.centroid
    ━━━━━━━━━━━━╌╌╌╌╌╌╌╌  epoch 12 of 20, batch 14 of 20, 1 min 05 s left
    train loss 0.00123, val 0.00150 (best 0.00149, epoch 10), lr 0.003
    █▇▆▄▃▃▂▂▁
    GPU 87 %, CPU 40 %

Elsewhere there is one plain line per epoch, and one a second of what moves.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from sleap_rtc.cli.text import bar, busy, loss, sparkline
from sleap_rtc.client.following import AliasGiven, CameHome, Fetching, LinkChanged, Update
from sleap_rtc.domain.units import format_bytes, format_duration, format_rate
from sleap_rtc.jobs.events import (
    EpochEnded,
    ErrorTold,
    JobEvent,
    Logged,
    OutputReady,
    Progress,
    StageStarted,
    StateChanged,
    Transferring,
)
from sleap_rtc.jobs.lifecycle import SETTLED, JobView, StageView
from sleap_rtc.transfer.progress import Progress as Transfer

BAR: Final = 22
SPARK: Final = 60


class Milestone(NamedTuple):
    """A line that stays, with a style of ``output.STYLES``.

    ``redrawn`` says that a terminal shows it anyway: it is for everything else.
    """

    text: str
    style: str = ""
    redrawn: bool = False


class JobScreen:
    """Follows one job.

    Args:
        worker: The worker's name.
        kind: What the job does.
    """

    def __init__(self, worker: str, kind: Literal["train", "track"]) -> None:
        self._worker = worker
        self._kind = kind
        self._link = "connecting"
        self._fetching: Fetching | None = None
        self._plain = ""
        self.view = JobView()

    def take(self, update: Update, view: JobView) -> list[Milestone]:
        """Take in what happened; the lines that stay are returned.

        Args:
            update: What happened.
            view: The job as it stands afterwards.
        """
        self.view = view
        match update:
            case JobEvent():
                return self._event(update)
            case LinkChanged():
                return self._link_changed(update)
            case Fetching():
                self._fetching = update
                self._plain = f"{self._name(update.what)}: {_transfer(update.progress)}"
            case CameHome(model=model):
                self._fetching = None
                if model is None:
                    return [Milestone("The predictions are home", "good")]
                return [Milestone(f"{model.label} is home: {update.path}", "good")]
            case AliasGiven(refused=refused):
                if refused:
                    return [Milestone(f"No alias was given: {refused}", "warning")]
                return [Milestone(f"It is called {update.alias}", "good")]
        return []

    def lines(self) -> list[str]:
        """What is redrawn."""
        found = []
        if self._link != "up":
            found.append(_LINK[self._link].format(worker=self._worker))
        if self._fetching is not None:
            progress = self._fetching.progress
            what = self._name(self._fetching.what)
            found.append(f"{bar(progress.percent / 100, BAR)}  {what} comes home")
            found.append(f"{'':{BAR}}  {_transfer(progress)}")
        view = self.view
        if view.state == "preparing" and view.transfer is not None:
            transfer = view.transfer
            done = transfer.done / transfer.total if transfer.total else 1.0
            doing = self._moving(transfer)
            return [*found, f"{bar(done, BAR)}  {doing}", f"  {_moved(transfer)}"]
        if view.state in ("running", "paused") and view.stage is not None:
            return [*found, *self._stage(view.stage_view(view.stage))]
        return [*found, *self._waiting()]

    def plain(self) -> str:
        """The same in one line, for what is no terminal."""
        return self._plain

    # ── what happened ────────────────────────────────────────────────────────

    def _event(self, event: JobEvent) -> list[Milestone]:
        match event.body:
            case StateChanged() as changed:
                return self._state(changed)
            case StageStarted() as started:
                return [Milestone(self._begins(started), "name")]
            case EpochEnded() as epoch:
                line = _epoch_line(self.view.stage_view(epoch.stage), epoch)
                return [Milestone(line, redrawn=True)]
            case Progress() as progress if self._kind == "track":
                self._plain = _frames_line(self.view.stage_view(progress.stage), progress)
            case Transferring() as transfer:
                self._plain = f"{self._moving(transfer)}: {_moved(transfer)}"
            case Logged(line=line) if self.view.state == "preparing":
                return [Milestone(line, "dim")]
            case OutputReady(what="model", stage=stage):
                name = self.view.stage_view(stage).name
                return [Milestone(f"{name} is trained")]
            case ErrorTold() as error:
                return [Milestone(line, "dim") for line in error.log_tail]
            case _:
                pass
        return []

    def _state(self, changed: StateChanged) -> list[Milestone]:
        worker = self._worker
        why = f": {changed.reason}" if changed.reason else ""
        text = {
            "queued": f"{worker} has the job{why}",
            "preparing": f"{worker} gets its data",
            "paused": "Paused",
            "finishing": "Finishing",
        }.get(changed.state, "")
        if changed.state in SETTLED and changed.state != "completed":
            return [Milestone(f"{changed.state.capitalize()}{why}", "warning")]
        return [Milestone(text)] if text else []

    def _moving(self, transfer: Transferring) -> str:
        """What happens with the job's data."""
        if transfer.way == "s3":
            return f"{self._worker} fetches it from storage"
        if transfer.way == "local":
            return f"{self._worker} reads it where it is"
        return f"sending to {self._worker}"

    def _begins(self, started: StageStarted) -> str:
        doing = "Training" if self._kind == "train" else "Tracking"
        which = f" {started.stage + 1} of {started.stages}" if started.stages > 1 else ""
        again = f", from epoch {started.first_epoch + 1} on" if started.first_epoch else ""
        return f"{doing}{which}: {_base(started.name)}{again}"

    def _name(self, what: str) -> str:
        """What people call what is fetched: ``model 0`` is the first run's."""
        kind, _, stage = what.partition(" ")
        return self.view.stage_view(int(stage)).name if kind == "model" and stage else what

    def _link_changed(self, update: LinkChanged) -> list[Milestone]:
        before, self._link = self._link, update.state
        if update.state == "down":
            return [
                Milestone(f"The connection to {self._worker} is lost; it is made anew", "warning")
            ]
        if update.state == "up" and before == "down":
            return [Milestone(f"Connected to {self._worker} again")]
        return []

    # ── what is redrawn ──────────────────────────────────────────────────────

    def _waiting(self) -> list[str]:
        pending = f" ({self.view.pending} is on its way)" if self.view.pending else ""
        return {
            None: [f"asking {self._worker} …"] if self._link == "up" else [],
            "queued": [f"waiting for {self._worker} to begin{pending}"],
            "assigned": [f"waiting for {self._worker} to begin{pending}"],
            "preparing": [f"{self._worker} prepares the job{pending}"],
            "paused": ["paused before it began"],
            "finishing": [f"{self._worker} checks and packs what it made"],
        }.get(self.view.state, [])

    def _stage(self, stage: StageView) -> list[str]:
        progress = self.view.progress
        states = ["paused"] if self.view.state == "paused" else []
        if self.view.pending:
            states.append(f"{self.view.pending} is on its way")
        state = [", ".join(states)] if states else []
        if self._kind == "track":
            words, done = _frames(progress), _share(progress)
            line = f"{bar(done, BAR)}  {words or 'the engine starts'}"
            return [*state, line, *_load(progress)]
        lines = [*state, f"{bar(_trained(stage, progress), BAR)}  {_epochs(stage, progress)}"]
        if stage.losses:
            lines.append(_losses(stage, progress))
            values = [e.val_loss if e.val_loss is not None else e.train_loss for e in stage.losses]
            if curve := sparkline(values, SPARK):
                lines.append(curve)
        elif progress is not None and progress.loss is not None:
            lines.append(f"batch loss {loss(progress.loss)}")
        return [*lines, *_load(progress)]


_LINK: Final = {
    "connecting": "connecting to {worker} …",
    "silent": "{worker} is silent; perhaps the network is",
    "down": "not connected to {worker}; trying again",
    "closed": "",
}


def _load(progress: Progress | None) -> list[str]:
    """How busy the worker is."""
    if progress is None or progress.load is None:
        return []
    return [busy(progress.load.cpu, progress.load.gpu)]


def _epochs(stage: StageView, progress: Progress | None) -> str:
    if progress is None or progress.epoch is None:
        done = stage.losses[-1].epoch + 1 if stage.losses else stage.first_epoch
        return f"epoch {done}{_of(stage.epochs)} done" if done else "the engine starts"
    parts = [f"epoch {progress.epoch + 1}{_of(stage.epochs)}"]
    parts.append(f"batch {progress.done}{_of(progress.total)}")
    if progress.eta_s is not None:
        parts.append(f"{format_duration(progress.eta_s)} left")
    return ", ".join(parts)


def _losses(stage: StageView, progress: Progress | None) -> str:
    last = stage.losses[-1]
    batch = progress.loss if progress is not None else None
    train = last.train_loss if last.train_loss is not None else batch
    parts = [f"train loss {loss(train)}", f"val {loss(last.val_loss)}"]
    known = [e for e in stage.losses if e.val_loss is not None]
    if known:
        best = min(known, key=lambda e: e.val_loss or 0.0)
        parts[-1] += f" (best {loss(best.val_loss)}, epoch {best.epoch + 1})"
    if last.learning_rate is not None:
        parts.append(f"lr {last.learning_rate:.3g}")
    return ", ".join(parts)


def _trained(stage: StageView, progress: Progress | None) -> float:
    if not stage.epochs:
        return 0.0
    whole = stage.losses[-1].epoch + 1 if stage.losses else stage.first_epoch
    part = 0.0
    if progress is not None and progress.epoch == whole and progress.total:
        part = progress.done / progress.total
    return (whole + part) / stage.epochs


def _epoch_line(stage: StageView, epoch: EpochEnded) -> str:
    parts = [
        f"{stage.name}: epoch {epoch.epoch + 1}{_of(stage.epochs)}",
        f"train loss {loss(epoch.train_loss)}",
        f"val loss {loss(epoch.val_loss)}",
    ]
    if epoch.learning_rate is not None:
        parts.append(f"learning rate {epoch.learning_rate:g}")
    if epoch.eta_s is not None:
        parts.append(f"{format_duration(epoch.eta_s)} left")
    return ", ".join(parts)


def _frames(progress: Progress | None) -> str:
    if progress is None:
        return ""
    parts = [f"frame {progress.done}{_of(progress.total)}"]
    if progress.rate:
        parts.append(f"{progress.rate:.1f} a second")
    if progress.eta_s is not None:
        parts.append(f"{format_duration(progress.eta_s)} left")
    return ", ".join(parts)


def _frames_line(stage: StageView, progress: Progress) -> str:
    return f"{_base(stage.name)}: {_frames(progress)}"


def _base(name: str) -> str:
    """A video's name without its place in the package."""
    return name.rpartition("/")[2]


def _share(progress: Progress | None) -> float:
    return progress.done / progress.total if progress is not None and progress.total else 0.0


def _of(total: int | None) -> str:
    return "" if total is None else f" of {total}"


def _moved(transfer: Transferring) -> str:
    return moved(transfer.done, transfer.total, transfer.rate, transfer.eta_s)


def _transfer(progress: Transfer) -> str:
    words = moved(progress.done, progress.total, progress.rate, progress.eta_s)
    return words if progress.phase == "receiving" else f"{progress.phase}, {words}"


def moved(done: int, total: int, rate: float = 0.0, eta_s: float | None = None) -> str:
    """How far bytes are: ``540 MB of 1.2 GB, 45 %, 32 MB/s, 20 s left``."""
    percent = 100 * done // total if total else 100
    parts = [f"{format_bytes(done)} of {format_bytes(total)}", f"{percent} %"]
    if rate:
        parts.append(format_rate(rate))
    if eta_s:
        parts.append(f"{format_duration(eta_s)} left")
    return ", ".join(parts)
