"""``train``: labels and configurations out, models home."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("labels", type=options.ANY_PATH, required=False)
@click.option(
    "--config",
    "-c",
    "configs",
    type=options.ANY_PATH,
    multiple=True,
    help="Training configuration; twice for a top-down pair, centroid first. Instead of those "
    "that a .zip brings.",
)
@options.room
@click.option("--worker", metavar="NAME", help="By default the least busy one, or you are asked.")
@click.option("--alias", help="What the model, or the pair, is called at home.")
@click.option("--engine", default="sleap-nn", show_default=True, help="The trainer.")
@click.option("--val-labels", type=options.ANY_PATH, help="Labels to validate on.")
@click.option("--run-name", help="Names the run; by default the configuration does.")
@click.option(
    "--detach", is_flag=True, help="Let go as soon as the worker, or storage, has the data."
)
@click.option(
    "--download/--no-download",
    default=None,
    help="Whether the models come home; on a terminal you are asked at the end.",
)
@click.option("--resume", metavar="MODEL", help="Go on with an interrupted training.")
@options.limit_rate
@options.transport
@options.explain
@options.yes
@click.pass_obj
def train(
    app: App,
    /,
    labels: Path | None,
    *,
    configs: tuple[Path, ...],
    resume: str | None,
    download: bool | None,
    yes: bool,
    **more: str | Path | bool | None,
) -> None:
    """Train on a worker, and bring the models home.

    LABELS is a package (.pkg.slp), a .slp with its videos beside it, or a .zip with
    either, such as the training package (.training_job.zip) that SLEAP exports with
    its configurations. What is sent, how large it is, to whom and by which way is said
    before it starts. Much of it goes to the room's storage first: then the worker has it
    while this machine is away, and so it is with --detach.

    Ctrl-C lets go of the job, which goes on; sleap-rtc jobs attach takes it up
    again, on this machine, whatever happened in between.

    \b
    sleap-rtc train flies.pkg.slp -c centroid.yaml -c centered_instance.yaml --alias flies
    sleap-rtc train flies.training_job.zip --alias flies
    sleap-rtc train flies.pkg.slp -c centroid.yaml --transport s3 --explain
    sleap-rtc train --resume flies
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    if resume is not None:
        if labels is not None or configs or more["explain"]:
            raise click.UsageError(
                "--resume goes on with what was sent then: no LABELS, --config or --explain."
            )
        from sleap_rtc.cli import training  # noqa: PLC0415 - --help stays quick

        training.resume(app, resume, download=download, yes=yes)
        return
    if labels is None:
        raise click.UsageError("Missing argument 'LABELS'.")
    if not configs and labels.suffix != ".zip":
        raise click.UsageError("Missing option '--config'.")
    from sleap_rtc.cli import training  # noqa: PLC0415 - --help stays quick

    wanted = training.Wanted(
        labels=labels,
        configs=configs,
        download=download,
        yes=yes,
        **more,  # type: ignore[arg-type] # by the options' names
    )
    training.train(app, wanted)
