"""``server`` and ``server-code``: running a server, and letting one more device in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path

_data_dir = click.option(
    "--data-dir",
    type=options.FOLDER,
    help="Folder of the server's database, on a local disk.",
)


@click.command()
@_data_dir
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="TCP port to listen on; 0 takes a free one.")
@click.option("--stun-port", type=int, help="UDP port that answers STUN; 0 turns it off.")
@click.option(
    "--public-url",
    "public_urls",
    metavar="URL",
    multiple=True,
    help="Addresses under which devices reach the server.",
)
@click.option(
    "--behind-proxy", is_flag=True, default=None, help="A proxy in front of the server speaks TLS."
)
@click.option(
    "--tls-cert",
    type=options.FILE,
    help="PEM file of the certificate chain.",
)
@click.option(
    "--tls-key",
    type=options.FILE,
    help="PEM file of its private key.",
)
@click.pass_obj
def server(app: App, /, **flags: object) -> None:
    """Run a server.

    It prints its address, and the first time a set-up code that lets one device
    sign in and make rooms. It runs until Ctrl-C or SIGTERM; devices come back by
    themselves when it is started again, and links between them don't notice.
    """
    from sleap_rtc.cli.machine_documents import ServerDocument  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.server.app import ServerInfo, run_server  # noqa: PLC0415

    settings = app.settings("server", **{f"server_{name}": value for name, value in flags.items()})

    def ready(info: ServerInfo) -> None:
        if info.warning:
            app.out.warn(info.warning)
        document = ServerDocument(
            url=info.url,
            port=info.port,
            stun_port=info.stun_port,
            data_dir=str(info.data_dir),
            setup_code=info.setup_code,
        )
        app.out.show(document, lambda: _show(app, info.url, info.setup_code))

    run_server(settings, on_ready=ready)
    app.out.say("The server has stopped.")


def _show(app: App, url: str, code: str | None) -> None:
    pairs = [("Server", url), ("Set-up code", code or "")]
    app.out.fields(pairs)
    if code:
        app.out.say(f"On your own machine: sleap-rtc login {url}")
        app.out.say("It asks for the set-up code, which lets one device in and make rooms.")
    app.out.say("Ctrl-C stops the server.")


@click.command()
@_data_dir
@click.pass_obj
def server_code(app: App, data_dir: Path | None) -> None:
    """Make a set-up code for one more device.

    To be run where the server's folder is, with the server running or not.
    Whoever has the code can sign in with one device, and make rooms.
    """
    from sleap_rtc.cli.machine_documents import (  # noqa: PLC0415 - --help stays quick
        ServerCodeDocument,
    )
    from sleap_rtc.server.app import new_code  # noqa: PLC0415

    code = new_code(app.settings(server_data_dir=data_dir))
    app.out.show(ServerCodeDocument(setup_code=code), lambda: app.out.data(code))
    app.out.say("It is for one device: sleap-rtc login SERVER, which asks for it.")
