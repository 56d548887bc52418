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
            "--benchmark", is_flag=True, help="Show throughput, handshake time and processor time."
        ),
        options.limit_rate,
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
        click.option(
            "--worker", metavar="WORKER", required=True, help="Name of the worker in the room."
        ),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("names", nargs=-1, required=True, type=MODEL, metavar="MODEL...")
@_moving
@click.pass_obj
def push_model(app: App, /, names: tuple[str, ...], **wishes: Any) -> None:
    """Push models of this library to a worker.

    MODEL is an id, 4 or more characters of one, or an alias; the alias of a pair
    pushes both. What the worker has, under whatever name, isn't sent again. Ctrl-C
    keeps what has arrived: the same command goes on from there.

    The worker looks into what comes, and takes nothing that could run something.
    An alias is never given by itself: what is free there is said.

    \b
    sleap-rtc push-model flies --worker gpu-1
    sleap-rtc push-model 3f2a9c01 77aa01bc --worker gpu-1 --if-exists keep-both
    sleap-rtc push-model flies --worker gpu-1 --alias flies --limit-rate 20MB
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    from sleap_rtc.cli.shipping import move  # noqa: PLC0415 - --help stays quick

    move(app, "push", names, **wishes)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="MODEL...")
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

    \b
    sleap-rtc pull-model flies --worker gpu-1
    sleap-rtc pull-model 3f2a9c01 --worker gpu-1 --alias flies
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    from sleap_rtc.cli.shipping import move  # noqa: PLC0415 - --help stays quick

    move(app, "pull", names, **wishes)
