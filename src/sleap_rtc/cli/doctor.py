"""``doctor``: what is wrong with the set-up, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from sleap_rtc.cli.machine_documents import CheckShown

_WORD = 7
"""Columns of a check's word; two more follow before its text."""
STYLES = {"ok": "good", "note": "dim", "warning": "warning", "broken": "bad"}


@click.command()
@click.pass_obj
def doctor(app: App) -> None:
    """Check the set-up, and say how to mend it.

    Looks at the home and its disk, this device's key and rooms, the servers and
    their clocks, who is online, the engines, and what connections need. Exits with
    1 if something is broken; warnings and notes don't count.
    """
    from sleap_rtc.cli.checks import examine  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.cli.machine_documents import DoctorDocument  # noqa: PLC0415

    checks: list[CheckShown] = []
    for check in examine(app):
        checks.append(check)
        app.out.live.update([f"looked at {check.name}"])
    app.out.live.clear()
    broken = sum(check.status == "broken" for check in checks)
    app.out.show(
        DoctorDocument(ok=not broken, checks=tuple(checks)), lambda: _print(app, checks, broken)
    )
    if broken:
        raise click.exceptions.Exit(1)


def _print(app: App, checks: list[CheckShown], broken: int) -> None:
    from sleap_rtc.cli.text import Cell, count, pad  # noqa: PLC0415 - --help stays quick

    for check in checks:
        if app.out.quiet and check.status in ("ok", "note"):
            continue
        word = Cell(pad(check.status, _WORD), STYLES[check.status])
        for line in _fitting(f"{check.name}: {check.message}", app.out.width()):
            app.out.cells([word, Cell(line)])
            word = Cell(" " * _WORD)
        if check.hint and check.status != "ok":
            for line in _fitting(check.hint, app.out.width()):
                app.out.cells([word, Cell(line, "dim")])
    if broken:
        app.out.say(f"{count(broken, 'thing')} to mend.", "bad")
    else:
        app.out.say("Nothing is broken.", "good")


def _fitting(text: str, width: int) -> list[str]:
    """Lines of a text that stand behind a check's word; a path or a command's word stays whole."""
    import textwrap  # noqa: PLC0415 - --help stays quick

    from sleap_rtc.cli.text import clean  # noqa: PLC0415

    room = width - _WORD - 2
    return textwrap.wrap(clean(text), room, break_long_words=False, break_on_hyphens=False)
