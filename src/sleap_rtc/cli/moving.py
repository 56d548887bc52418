"""``push-model`` and ``pull-model``: models to a worker, and from one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App
from sleap_rtc.cli.completing import MODEL

F = TypeVar("F", bound=Callable[..., Any])

IF_EXISTS: Final = ("ask", "skip", "overwrite", "keep-both")


def _moving(function: F) -> F:
    """The options of both."""
    for option in (
        click.option(
            "--benchmark",
            is_flag=True,
            help="Show throughput, ways, what was sent again, handshake and processor time.",
        ),
        options.limit_rate,
        options.explain,
        options.transport,
        click.option(
            "--alias", metavar="ALIAS", help="What it is called on the other side, if that is free."
        ),
        click.option(
            "--if-exists",
            type=click.Choice(IF_EXISTS),
            default="ask",
            help="If another model has its id; without a terminal ask is an error.",
        ),
        options.room,
    ):
        function = option(function)
    return function


@click.command()
@click.argument("names", nargs=-1, required=True, type=MODEL, metavar="MODEL...")
@options.worker
@_moving
@click.pass_obj
def push_model(app: App, /, names: tuple[str, ...], worker: str | None, **wishes: Any) -> None:
    """Push models of this library to a worker.

    MODEL is an id, 4 or more characters of one, or an alias; the alias of a pair
    pushes both. What the worker has, under whatever name, isn't sent again. Ctrl-C
    keeps what has arrived: the same command goes on from there.

    The worker looks into what comes, and takes nothing that could run something.
    An alias is never given by itself: what is free there is said.

    With --transport s3 it goes to the room's storage, and the worker fetches it there.

    \b
    sleap-rtc push-model flies
    sleap-rtc push-model 3f2a9c01 77aa01bc --worker gpu-1 --if-exists keep-both
    sleap-rtc push-model flies --worker gpu-1 --alias flies --limit-rate 20MB
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    from sleap_rtc.cli.shipping import move  # noqa: PLC0415 - --help stays quick

    move(app, "push", names, workers=() if worker is None else (worker,), **wishes)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--worker",
    "workers",
    metavar="WORKER",
    multiple=True,
    help="Name of a worker that has them; needed if several have; may be repeated.",
)
@_moving
@click.option(
    "--trust", is_flag=True, help="Take files that could run something when loaded; recorded."
)
@click.pass_obj
def pull_model(app: App, /, names: tuple[str, ...], **wishes: Any) -> None:
    """Pull models of a worker into this library.

    MODEL is an id, 4 or more characters of one, or an alias, as they are there; the
    alias of a pair pulls both. What is here, under whatever name, isn't fetched
    again. Ctrl-C keeps what has arrived: the same command goes on from there.

    Without --worker it is the only one that is online, or the only one that has them.
    Several that have the same content share the download; the first says which models
    there are. What is large comes from the room's storage as well, if it is there.

    \b
    sleap-rtc pull-model flies
    sleap-rtc pull-model 3f2a9c01 --worker gpu-1 --alias flies
    sleap-rtc pull-model flies --worker gpu-1 --worker gpu-2 --benchmark
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    from sleap_rtc.cli.shipping import move  # noqa: PLC0415 - --help stays quick

    move(app, "pull", names, **wishes)
