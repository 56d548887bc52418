"""``sleap-rtc completion``: what makes a shell complete commands and names."""

from __future__ import annotations

import os

import click

from sleap_rtc.cli.app import App

PLACES = {
    "bash": "sleap-rtc completion bash > ~/.local/share/bash-completion/completions/sleap-rtc",
    "fish": "sleap-rtc completion fish > ~/.config/fish/completions/sleap-rtc.fish",
    "zsh": "sleap-rtc completion zsh > ~/.zfunc/_sleap-rtc   (with fpath+=~/.zfunc in .zshrc)",
}
"""Shell → what keeps the script where the shell looks for it."""


@click.command()
@click.argument("shell", type=click.Choice(tuple(PLACES)), required=False)
@click.pass_obj
def completion(app: App, shell: str | None) -> None:
    """Let bash, zsh or fish complete commands and names.

    Prints a script, to be kept where the shell looks for it; SHELL is the one that
    you use, unless given. Commands and options are completed, and the names of
    models, aliases, workers and rooms that this machine knows.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - --help stays quick

    from sleap_rtc.cli.commands import cli  # noqa: PLC0415 - it imports this
    from sleap_rtc.cli.table import COMPLETE  # noqa: PLC0415 - the same

    if shell is None:
        shell = os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119 - --help stays quick
        if shell not in PLACES:
            raise click.UsageError(f"Name the shell: {', '.join(PLACES)}.")
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choices are click's
    # The script alone: click would ask bash for its version and warn about old ones.
    made = kind(cli, {}, "sleap-rtc", COMPLETE)
    app.out.raw(made.source_template % made.source_vars())
    app.out.say(f"To have it in every new shell: {PLACES[shell]}")
