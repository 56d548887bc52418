"""``restore-model``: bringing deleted models back."""

from __future__ import annotations

import click

from sleap_rtc.cli.app import App
from sleap_rtc.cli.completing import DELETED


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=DELETED)
@click.pass_obj
def restore_model(app: App, names: tuple[str, ...]) -> None:
    """Bring deleted models back.

    Each NAME is the id of a deleted model, 4 or more characters of it, or the alias
    that it had. Its record and its files are as they were, for 30 days after it was
    deleted, and so is its alias, unless another model has it by now.
    sleap-rtc list-models --deleted shows what can be brought back.
    """
    from sleap_rtc.cli.undeleting import restore  # noqa: PLC0415 - --help stays quick

    restore(app, names)
