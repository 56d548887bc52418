"""``clean-models``: removing what the library doesn't need."""

from __future__ import annotations

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App

KINDS = ("partial", "abandoned", "trash", "records", "broken-links", "files")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what there is.")
@click.option(
    "--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only this; may be repeated."
)
@options.yes
@click.pass_obj
def clean_models(app: App, dry_run: bool, kinds: tuple[str, ...], yes: bool) -> None:
    """Remove what the library doesn't need.

    Transfers that were cut, models that were never finished, what was deleted more
    than 30 days ago, and records of models whose files are nowhere: each kind is
    shown with its size, and asked for. With --yes these are removed.

    Records of models that link to files which aren't there (broken-links: the drive
    may be unplugged) and folders that no library knows (files) are removed only when
    a person says so, or with --kind and --yes. They stay in the trash for 30 days,
    as records do. Your own files, and links to them, are never touched.
    """
    from sleap_rtc.cli.cleaning import clean  # noqa: PLC0415 - --help stays quick

    clean(app, dry_run=dry_run, kinds=kinds, yes=yes)
