"""``server-init-storage``: setting up the buckets that a server keeps rooms' files in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from sleap_rtc.cli.app import App
from sleap_rtc.errors import UsageError

if TYPE_CHECKING:
    from sleap_rtc.cli.storage_documents import InitStorageDocument
    from sleap_rtc.storage.budget import Budget

ACCOUNT: Final = "account"
"""Whose step it is that belongs to no bucket."""
MAX_EMAIL: Final = 50
"""Characters of the longest address that AWS Budgets takes."""


@click.command()
@click.option(
    "--origin",
    "origins",
    metavar="URL",
    multiple=True,
    help="Address of a page from which browsers upload; can be given again.",
)
@click.option("--kms-key", metavar="KEY", help="Key to encrypt with, instead of the store's own.")
@click.option("--log-bucket", metavar="NAME", help="Bucket that takes the access logs.")
@click.option(
    "--budget",
    metavar="USD",
    type=click.IntRange(min=1, max=1_000_000_000),
    help="Dollars in a month; whoever is named is told before they are spent. For Amazon's S3.",
)
@click.option("--budget-email", metavar="ADDRESS", help="Who is told; belongs to --budget.")
@click.option("--policies", is_flag=True, help="Print the policy documents and change nothing.")
@click.pass_obj
def server_init_storage(
    app: App,
    /,
    *,
    origins: tuple[str, ...],
    kms_key: str | None,
    log_bucket: str | None,
    budget: int | None,
    budget_email: str | None,
    policies: bool,
) -> None:
    """Set up the buckets for rooms' files.

    In S3, or in a store that speaks its protocol: makes the buckets that the settings
    storage_uploads_bucket and storage_rooms_bucket name, unless they are there, and sets
    what they need: public access blocked, encryption, old versions, what goes away by
    itself. Then it tries whether the store is safe for several writers, and refuses one
    that isn't. Given again, it ends the same.

    Credentials come from the places that every tool of S3 knows: AWS_ACCESS_KEY_ID,
    a role, ~/.aws/credentials. With --budget and --budget-email it has AWS Budgets send
    mails, if the program aws is installed and may do that; else it prints the command
    that does. With --policies it prints what rights the server and
    this command need; workers and clients need none.

    \b
    sleap-rtc server-init-storage
    sleap-rtc server-init-storage --origin https://lab.example.org
    sleap-rtc server-init-storage --budget 50 --budget-email lab@example.org
    sleap-rtc server-init-storage --policies
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    from sleap_rtc.cli.storage_documents import (  # noqa: PLC0415 - --help stays quick
        InitStorageDocument,
        SetUpShown,
    )
    from sleap_rtc.storage import setup  # noqa: PLC0415
    from sleap_rtc.storage.budget import shown  # noqa: PLC0415

    wanted = _budget(budget, budget_email)

    settings = app.settings(
        storage_origins=origins, storage_kms_key=kms_key, storage_log_bucket=log_bucket
    ).storage
    documents = setup.policies(settings.uploads_bucket, settings.rooms_bucket)
    if policies:
        document = InitStorageDocument(
            steps=(),
            pins_content=None,
            pins_ranges=None,
            policies=documents,
            budget_command=shown(wanted) if wanted else "",
        )
        app.out.show(document, lambda: app.out.raw(json.dumps(documents, indent=2)))
        return

    import os  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from sleap_rtc.errors import Offline  # noqa: PLC0415
    from sleap_rtc.storage.opening import open_buckets  # noqa: PLC0415
    from sleap_rtc.storage.probe import probe  # noqa: PLC0415

    if app.offline:
        raise Offline(url="The storage")
    uploads, rooms = open_buckets(settings, os.environ, home=Path.home())
    wishes = setup.Wishes(
        origins=settings.origins,
        kms_key=settings.kms_key,
        log_bucket=settings.log_bucket or "",
    )
    try:
        steps = setup.init_bucket(uploads, "uploads", wishes)
        steps += setup.init_bucket(rooms, "rooms", wishes)
        found = probe(rooms)
    finally:
        uploads.close()
    why = _set_budget(wanted, amazon=settings.endpoint is None)
    steps.append(setup.Step(bucket=ACCOUNT, what="budget alert", done=not why, why=why))
    document = InitStorageDocument(
        steps=tuple(
            SetUpShown(bucket=step.bucket, what=step.what, done=step.done, why=step.why)
            for step in steps
        ),
        pins_content=found.pins_content,
        pins_ranges=found.pins_ranges,
        policies=documents,
        budget_command=shown(wanted) if wanted else "",
    )
    app.out.show(document, lambda: _show(app, document))


def _budget(limit: int | None, email: str | None) -> Budget | None:
    """The budget that is wanted; None where none is.

    Raises:
        UsageError: Half of it is missing, or the address is none.
    """
    from sleap_rtc.storage.budget import Budget  # noqa: PLC0415 - --help stays quick

    if limit is None and email is None:
        return None
    if limit is None or email is None:
        raise UsageError(message="--budget and --budget-email belong together.")
    name, _, host = email.partition("@")
    if not (name and host) or not email.isprintable() or " " in email or len(email) > MAX_EMAIL:
        raise UsageError(message=f"{email[:80]!r} is no address of mails.")
    return Budget(limit=limit, email=email)


def _set_budget(wanted: Budget | None, *, amazon: bool) -> str:
    """Set the budget's alert; why it isn't set is returned."""
    import os  # noqa: PLC0415

    from sleap_rtc.storage.budget import RIGHTS, create  # noqa: PLC0415

    if wanted is None:
        return "none is named with --budget and --budget-email"
    if not amazon:
        return "AWS Budgets watches Amazon's accounts, and this store isn't Amazon's"
    why = create(wanted, os.environ)
    return f"{why} (it needs {' and '.join(RIGHTS)})" if why else ""


def _show(app: App, document: InitStorageDocument) -> None:
    for step in document.steps:
        who = "" if step.bucket == ACCOUNT else "the store says "
        told = "" if step.done else f" - not done, {who}{step.why}"
        app.out.data(f"{step.bucket}: {step.what}{told}")
    if document.budget_command and not document.steps[-1].done:
        app.out.warn("The budget alert isn't set. Whoever may, sets it with the account's digits:")
        app.out.raw(document.budget_command)
    app.out.data("Safe for several writers: of sixteen who made one object, one succeeded.")
    if not document.pins_content:
        app.out.warn(
            "This store takes other bytes than a link is for. Nothing is lost by it: whoever "
            "reads them finds them damaged."
        )
    if not document.pins_ranges:
        app.out.warn(
            "This store doesn't notice that an object was replaced while it is read. Downloads "
            "find out at their end."
        )
    app.out.say("Rights for the server: sleap-rtc server-init-storage --policies")
