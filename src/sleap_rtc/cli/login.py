"""``login``: signing in at a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli.app import App
from sleap_rtc.cli.options import read_secret

if TYPE_CHECKING:
    from pathlib import Path

    from sleap_rtc.client.rooms import SignedIn
    from sleap_rtc.config import Settings


@click.command()
@click.argument("server", required=False)
@click.option(
    "--code-file",
    metavar="FILE",
    help="Read the set-up code from a file, or from standard input with -.",
)
@click.option(
    "--code",
    envvar="SLEAP_RTC_SETUP_CODE",
    help="The set-up code itself. Others on this machine can see it while this runs; "
    "it can be used once.",
)
@click.pass_obj
def login(app: App, server: str | None, code_file: str | None, code: str | None) -> None:
    """Sign in at a server.

    The first time a set-up code is needed, which the server printed when it was
    started; it is asked for on a terminal. A device that has a key there signs in
    without. Who only joins a room needs no login: the invite link is enough.
    """
    from sleap_rtc.cli.room_documents import LoginDocument  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.errors import UsageError  # noqa: PLC0415

    settings = app.settings(server=server)
    if settings.server is None:
        raise UsageError(
            message="Which server?",
            hint="sleap-rtc login https://lab.example.org:8765, or whatever address the server "
            "printed when it was started.",
        )
    if code_file is not None:
        code = read_secret(app, code_file)
    signed_in = _sign_in(app, settings, settings.server, code)
    remembered = _remember(settings, signed_in.server)
    document = LoginDocument(
        server=signed_in.server,
        device=signed_in.device,
        may_create_rooms=signed_in.may_create_rooms,
    )
    app.out.show(
        document,
        lambda: app.out.fields([("Server", signed_in.server), ("Device", signed_in.device)]),
    )
    if remembered:
        app.out.say(
            f"It is the server for new rooms from now on ({settings.home / 'config.toml'})."
        )
    if signed_in.may_create_rooms:
        app.out.say("Next: sleap-rtc room create NAME")
    else:
        app.out.say("This device may join rooms: sleap-rtc room join LINK")


def _sign_in(app: App, settings: Settings, server: str, code: str | None) -> SignedIn:
    from sleap_rtc.client.rooms import login as sign_in  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.errors import NotSignedIn  # noqa: PLC0415

    try:
        return app.run(sign_in(settings, server, code=code))
    except NotSignedIn as error:
        if code is not None:
            raise
        if not app.out.interactive:
            hint = (
                f"sleap-rtc login {server} --code-file - reads the set-up code from standard "
                "input; the server printed it when it was started."
            )
            raise NotSignedIn(hint=hint, **error.details) from None
    app.out.say("This server doesn't know this device yet.")
    code = app.out.prompt("Set-up code, as the server printed it:")
    return app.run(sign_in(settings, server, code=code))


def _remember(settings: Settings, server: str) -> bool:
    """Note the server in the file of settings, unless one is noted there already."""
    from sleap_rtc.config import FILE_NAME, read_file  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.files.durable import write_replacing  # noqa: PLC0415

    path: Path = settings.home / FILE_NAME
    if "server" in read_file(path):
        return False
    old = path.read_text("utf-8") if path.is_file() else ""
    # At the top: further down a line could belong to a table.
    write_replacing(path, f'server = "{server}"\n{old}'.encode())
    return True
