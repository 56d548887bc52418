"""``export-registry``, ``import-registry``, ``backup`` and ``restore``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path

replace = click.option("--force", is_flag=True, help="Replace the file if it is there.")
revive = click.option(
    "--include-deleted", is_flag=True, help="Bring back models that were deleted here, too."
)


@click.command()
@click.argument("file", type=options.FILE)
@replace
@click.pass_obj
def export_registry(app: App, file: Path, force: bool) -> None:
    """Write every record and alias to a JSON file.

    The models' files are not in it: backup saves them, too.
    """
    from sleap_rtc.cli.keeping import export  # noqa: PLC0415 - --help stays quick

    export(app, file, replacing=force)


@click.command()
@click.argument("file", type=options.FILE)
@revive
@click.pass_obj
def import_registry(app: App, file: Path, include_deleted: bool) -> None:
    """Merge records and aliases from another library.

    FILE is what export-registry wrote, a library's manifest.json, or a registry of
    the public sleap-rtc. What is here stays as it is: nothing is replaced, no alias
    is taken from a model, and each conflict is named.
    """
    from sleap_rtc.cli.keeping import import_  # noqa: PLC0415 - --help stays quick

    import_(app, file, revive=include_deleted)


@click.command()
@click.argument("file", type=options.FILE)
@click.option(
    "--with-linked",
    is_flag=True,
    help="Save the contents of linked files, too.",
)
@replace
@click.pass_obj
def backup(app: App, file: Path, with_linked: bool, force: bool) -> None:
    """Save the whole library to one archive.

    The models' files are in it. FILE ends with .tar, .tar.gz or, with the extra
    zstd, .tar.zst; weights hardly get smaller by compression.
    """
    from sleap_rtc.cli.keeping import back_up  # noqa: PLC0415 - --help stays quick

    back_up(app, file, contents=with_linked, replacing=force)


@click.command()
@click.argument("file", type=options.FILE)
@revive
@click.pass_obj
def restore(app: App, file: Path, include_deleted: bool) -> None:
    """Bring back what backup saved.

    Every file is checked by its hash. Into a library that has models it is merged:
    nothing that is here is replaced. Interrupted, it leaves whole models, and
    the same command goes on.
    """
    from sleap_rtc.cli.keeping import restore as bring_back  # noqa: PLC0415 - --help stays quick

    bring_back(app, file, revive=include_deleted)
