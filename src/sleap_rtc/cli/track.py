"""``track``: models over videos, here or on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path


class FrameRange(click.ParamType):  # type: ignore[type-arg] # generic in newer versions alone
    """``A-B``: frames from A to B, both included, counted from 0."""

    name = "A-B"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read it."""
        first, dash, last = str(value).partition("-")
        if not (dash and _is_number(first) and _is_number(last) and int(first) <= int(last)):
            self.fail(f"{str(value)[:40]!r} is not of the form 0-99.", param, ctx)
        return int(first), int(last)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


@click.command()
@click.argument("videos", type=options.ANY_PATH, nargs=-1, required=True, metavar="VIDEO…")
@click.option(
    "--model",
    "-m",
    "models",
    multiple=True,
    required=True,
    help="Id, alias or path; twice for a top-down pair that has no alias of its own.",
)
@click.option(
    "-o",
    "--output",
    type=options.ANY_PATH,
    help="A .slp file, or a folder; by default beside the video.",
)
@click.option("--frames", type=FrameRange(), help="First and last frame, counted from 0.")
@click.option("--tracking", is_flag=True, help="Link identities over time.")
@click.option("--remote", is_flag=True, help="On a worker, which fetches what it lacks from here.")
@options.room
@click.option("--worker", metavar="NAME", help="The worker, with --remote.")
@options.limit_rate
@options.transport
@options.explain
@click.option("--overwrite", is_flag=True, help="Replace predictions that are there already.")
@click.option(
    "--trust-model",
    "trust",
    is_flag=True,
    help="Run a checkpoint from elsewhere though something odd was found in it.",
)
@click.pass_obj
def track(
    app: App,
    /,
    *,
    videos: tuple[Path, ...],
    models: tuple[str, ...],
    output: Path | None,
    frames: tuple[int, int] | None,
    tracking: bool,
    remote: bool,
    room: str | None,
    worker: str | None,
    explain: bool,
    overwrite: bool,
    trust: bool,
) -> None:
    """Run models over videos, here or on a worker.

    Each video's predictions are written to a .slp beside it, or where -o says.
    Which models a name stands for, with the ids of their content, is said before
    it starts.

    \b
    sleap-rtc track --model flies video.mp4
    sleap-rtc track --model flies video.mp4 --remote --worker gpu-1 -o out/
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    if worker is not None and not remote:
        raise click.UsageError("--worker goes with --remote.")
    if explain and not remote:
        raise click.UsageError("--explain goes with --remote.")
    from sleap_rtc.cli import tracking as work  # noqa: PLC0415 - --help stays quick

    wanted = work.Wanted(
        videos=videos,
        models=models,
        output=output,
        frames=frames,
        tracking=tracking,
        room=room,
        worker=worker,
        explain=explain,
        overwrite=overwrite,
        trust=trust,
    )
    (work.track_remotely if remote else work.track_locally)(app, wanted)
