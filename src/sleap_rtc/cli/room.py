"""``room``: making, sharing, joining and listing rooms, and who is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from sleap_rtc.cli import options
from sleap_rtc.cli.app import App
from sleap_rtc.cli.options import read_secret

if TYPE_CHECKING:
    from sleap_rtc.auth.store import RoomEntry
    from sleap_rtc.cli.room_documents import MemberShown, RoomShown
    from sleap_rtc.client.members import RoomMember
    from sleap_rtc.domain.places import Role

ROLES: Final = ("member", "worker", "viewer")


@click.group()
def room() -> None:
    """Make, share, join and list rooms, and see who is in them.

    A room is where clients and workers meet. Whoever makes one owns it; everybody
    else joins by an invite link.
    """


@room.command()
@click.argument("name")
@click.option("--server", help="Server to talk to.")
@click.pass_obj
def create(app: App, name: str, server: str | None) -> None:
    """Make a room; this device becomes its owner.

    Prints the room's recovery code, once: keep it on paper or in a password
    manager. It makes any device an owner again, should this one be lost.
    """
    from sleap_rtc.cli.room_documents import (  # noqa: PLC0415 - --help stays quick
        RoomCreatedDocument,
    )

    client = app.client()
    created = app.run(client.create_room(name, server=server))
    shown = room_shown(created.entry)
    document = RoomCreatedDocument(room=shown, recovery_code=created.recovery)
    app.out.show(
        document,
        lambda: app.out.fields(
            [("Room", shown.name), ("Id", shown.room), ("Recovery code", created.recovery)]
        ),
    )
    app.out.say("Keep the recovery code on paper or in a password manager: it is not shown again.")
    app.out.say("Whoever has it owns the room; without it, a lost device is a lost room.")
    app.out.say(f"Next, for a machine that trains: sleap-rtc room invite {name} --role worker")


@room.command()
@click.argument("name", metavar="[ROOM]", required=False)
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="member",
    show_default=True,
    help="A member runs jobs, a worker does them, a viewer looks on.",
)
@click.option("--uses", type=int, default=1, show_default=True, help="How many devices may join.")
@click.option("--hours", type=float, default=24.0, show_default=True, help="How long it is good.")
@click.pass_obj
def invite(app: App, name: str | None, role: Role, uses: int, hours: float) -> None:
    """Print an invite link: alone on standard output, to be piped or copied.

    Whoever has the link can join until it ends. Send it as you would a password.
    """
    from datetime import UTC, datetime  # noqa: PLC0415 - --help stays quick

    from sleap_rtc.auth.invites import parse_link  # noqa: PLC0415
    from sleap_rtc.cli.room_documents import InviteDocument  # noqa: PLC0415

    client = app.client()
    entry = client.room(name)
    link = client.invite(entry.room, role=role, uses=uses, hours=hours)
    _, opened = parse_link(link, now=datetime.now(UTC))
    document = InviteDocument(
        link=link, room=entry.name, role=role, uses=uses, expires_at=opened.expires
    )
    app.out.show(document, lambda: app.out.data(link))
    many = "one device" if uses == 1 else f"{uses} devices"
    ends = f"{opened.expires.astimezone():%Y-%m-%d %H:%M %Z}"
    app.out.say(f"For {many} to join {entry.name} as {role}, until {ends}. It is a secret.")
    if role == "worker":
        app.out.say("There: sleap-rtc worker --room - --name NAME, and paste it.")
    else:
        app.out.say("There: sleap-rtc room join - , and paste it.")


@room.command()
@click.argument("link", default="-", required=False)
@click.option("--name", help="What the room is called here; by default as its owner called it.")
@click.pass_obj
def join(app: App, link: str, name: str | None) -> None:
    """Join a room by an invite link.

    Without LINK, or with -, it is read from standard input, so that it stays out
    of the shell's history.
    """
    from sleap_rtc.cli.room_documents import RoomDocument  # noqa: PLC0415 - --help stays quick

    client = app.client()
    entry = app.run(client.join(given_link(app, link), name=name))
    shown = room_shown(entry)
    app.out.show(
        RoomDocument(room=shown),
        lambda: app.out.fields([("Room", shown.name), ("Id", shown.room), ("Role", shown.role)]),
    )
    if shown.role == "worker":
        app.out.say(f"Next: sleap-rtc worker --room {shown.name} --name NAME")
    else:
        app.out.say(f"Next: sleap-rtc workers --room {shown.name}")


@room.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List the rooms that this device is in."""
    from sleap_rtc.cli.room_documents import RoomsDocument  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.cli.text import Cell, Column  # noqa: PLC0415

    rooms = [room_shown(entry) for entry in app.client().rooms()]

    def human() -> None:
        columns = [Column("room"), Column("role", whole=True), Column("server"), Column("until")]
        rows = [
            [
                Cell(one.name, "name"),
                one.role,
                one.server,
                f"{one.expires_at.astimezone():%Y-%m-%d}"
                if one.expires_at
                else Cell("ended", "bad"),
            ]
            for one in rooms
        ]
        if rooms:
            app.out.table(columns, rows)
        else:
            app.out.say("This device is in no room: sleap-rtc room join LINK, or room create NAME.")

    app.out.show(RoomsDocument(rooms=tuple(rooms)), human)


@room.command()
@click.argument("name", metavar="[ROOM]", required=False)
@click.pass_obj
def members(app: App, name: str | None) -> None:
    """List the members of a room that this device owns.

    Their certificates are renewed by an owner's device, whenever it is online.
    """
    from sleap_rtc.cli.room_documents import MembersDocument  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.cli.text import Cell, Column  # noqa: PLC0415
    from sleap_rtc.domain.ids import fingerprint  # noqa: PLC0415

    client = app.client()
    entry = client.room(name)
    found = app.run(client.members(entry.room))

    def human() -> None:
        columns = [
            Column("member"),
            Column("role", whole=True),
            Column("seen", whole=True),
            Column("until", whole=True),
            Column("key"),
        ]
        rows = [
            [
                Cell(f"{one.name} (this device)" if one.me else one.name, "name"),
                one.role,
                f"{one.seen.astimezone():%Y-%m-%d}",
                f"{one.expires.astimezone():%Y-%m-%d}",
                fingerprint(one.device),
            ]
            for one in found
        ]
        app.out.table(columns, rows)

    shown = tuple(member_shown(one) for one in found)
    app.out.show(MembersDocument(room=entry.name, members=shown), human)


@room.command()
@click.argument("member")
@click.option("--room", "name", metavar="ROOM", help="The room; by default the only one.")
@options.yes
@click.pass_obj
def remove(app: App, member: str, name: str | None, yes: bool) -> None:
    """Remove a member from a room that this device owns.

    MEMBER is its name, or the first 8 digits or more of its key. Whoever is online
    ends its connections to it at once. Its jobs go on.
    """
    from sleap_rtc.cli.room_documents import (  # noqa: PLC0415 - --help stays quick
        MemberRemovedDocument,
    )
    from sleap_rtc.domain.ids import fingerprint  # noqa: PLC0415
    from sleap_rtc.errors import Cancelled, UsageError  # noqa: PLC0415

    client = app.client()
    entry = client.room(name)
    if not yes:
        if not app.out.interactive:
            raise UsageError(message=f"Remove {member} from {entry.name}?", hint="Add --yes.")
        if not app.out.ask(f"Remove {member} from room {entry.name}?", default=False):
            raise Cancelled(what="Removing a member")
    gone = app.run(client.remove_member(member, room=entry.room))
    document = MemberRemovedDocument(room=entry.name, removed=member_shown(gone))
    app.out.show(
        document,
        lambda: app.out.fields(
            [
                ("Removed", f"{gone.name}, {gone.role} of {entry.name}"),
                ("Key", fingerprint(gone.device)),
            ]
        ),
    )


def given_link(app: App, link: str) -> str:
    """An invite link from the command line, a prompt or standard input."""
    if link != "-":
        return link
    if app.out.interactive:
        # Not shown, and read without the terminal's limit on the length of a line.
        return app.out.prompt("Invite link (it is not shown):", secret=True)
    return read_secret(app, "-")


def room_shown(entry: RoomEntry) -> RoomShown:
    """A room as it is shown."""
    from datetime import UTC, datetime  # noqa: PLC0415 - --help stays quick

    from sleap_rtc.auth.certificates import verify_chain  # noqa: PLC0415
    from sleap_rtc.cli.room_documents import RoomShown  # noqa: PLC0415
    from sleap_rtc.errors import DataError, NotTrusted  # noqa: PLC0415

    try:
        expires = verify_chain(entry.chain, room=entry.room, now=datetime.now(UTC)).expires
    except (NotTrusted, DataError):
        expires = None
    return RoomShown(
        room=entry.room, name=entry.name, server=entry.server, role=entry.role, expires_at=expires
    )


def member_shown(member: RoomMember) -> MemberShown:
    """A member as it is shown."""
    from sleap_rtc.cli.room_documents import MemberShown  # noqa: PLC0415 - --help stays quick

    return MemberShown(
        name=member.name,
        role=member.role,
        device=member.device,
        expires_at=member.expires,
        seen_at=member.seen,
        this_device=member.me,
    )
