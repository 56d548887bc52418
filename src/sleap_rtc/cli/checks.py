"""What ``doctor`` looks at, one function per thing.

Each gives what it found as a sentence, and a hint where there is something to do:

=========  ==================================================
ok         as it should be
note       not needed by everybody; said so that it is known
warning    works, and may not for long
broken     something doesn't work
=========  ==================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http.client
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import sleap_rtc
from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.cli.app import App
from sleap_rtc.cli.library_checks import library
from sleap_rtc.cli.machine_documents import CheckShown
from sleap_rtc.cli.network_checks import sockets
from sleap_rtc.cli.text import count
from sleap_rtc.config import Settings
from sleap_rtc.domain.units import format_bytes, format_duration
from sleap_rtc.engines import registry as engines
from sleap_rtc.errors import (
    DataError,
    EngineMissing,
    InvalidConfig,
    NotTrusted,
    ServerUnreachable,
    SleapRtcError,
    UsageError,
)
from sleap_rtc.files.drives import Kind, drive_of
from sleap_rtc.files.durable import TEMPORARY
from sleap_rtc.files.space import free_space
from sleap_rtc.net.address import ServerAddress, parse_server
from sleap_rtc.transports.shells import shell
from sleap_rtc.transports.webrtc import WebRtc

T = TypeVar("T")
Status = Literal["ok", "note", "warning", "broken"]

LOW_DISK: Final = 5_000_000_000
FULL_DISK: Final = 200_000_000
SOON: Final = timedelta(days=7)
SKEW_S: Final = 60.0
"""Seconds by which this machine's clock may differ from the server's."""
MUCH_SKEW_S: Final = 300.0
"""Seconds from which certificates are refused."""
ASK_S: Final = 10.0
CHECK: Final = "Check the address, and that a sleap-rtc server runs there."

_DRIVES: Final[dict[Kind, str]] = {
    "ssd": "an SSD",
    "hdd": "a hard disk",
    "network": "a network drive",
    "memory": "memory",
    "unknown": "of unknown kind",
}


def examine(app: App) -> Iterator[CheckShown]:
    """Look at everything; what can't be looked at because of something else is left out."""
    yield _python()
    try:
        settings = app.settings()
    except SleapRtcError as error:
        yield _failed("settings", error)
        return
    yield from _home(settings)
    yield from _disks(settings)
    yield from library(settings)
    try:
        store = DeviceStore(settings.home)
        key = store.device_key()
    except SleapRtcError as error:
        yield _failed("device key", error)
    else:
        yield _check("device key", "ok", f"this device is {key.device[:12]}…")
        yield from _rooms(app, settings, store)
    yield from _engines()
    yield _webrtc(settings)
    yield _ice(settings)
    if (found := sockets()) is not None:
        yield found
    yield _labels()
    yield _namespace()


def _check(name: str, status: Status, message: str, hint: str = "") -> CheckShown:
    return CheckShown(name=name, status=status, message=message, hint=hint)


def _failed(name: str, error: SleapRtcError) -> CheckShown:
    return _check(name, "broken", error.message, error.hint_text)


# ── this machine ─────────────────────────────────────────────────────────────


def _python() -> CheckShown:
    version = platform.python_version()
    words = f"sleap-rtc {sleap_rtc.__version__}, Python {version}, {platform.platform(terse=True)}"
    return _check("program", "ok", words)


def _home(settings: Settings) -> Iterator[CheckShown]:
    home = settings.home
    if not home.exists():
        yield _check("home", "note", f"{home} will be made when it is first needed")
        return
    try:
        links = _can_link(home)
    except OSError as error:
        hint = "Change its permissions, or choose another place: SLEAP_RTC_HOME moves it."
        yield _check("home", "broken", f"{home} can't be written ({error.strerror})", hint)
        return
    yield _check("home", "ok", f"{home} can be written")
    if not links:
        yield _check(
            "hard links",
            "warning",
            f"the file system of {home} has none, so the library is for one machine at a time",
            "If several machines share this home, move it to a file system with hard links.",
        )


def _can_link(folder: Path) -> bool:
    """Whether hard links can be made; OSError if nothing can be written."""
    one = folder / f"{TEMPORARY}doctor-{os.getpid()}"
    two = one.with_name(f"{one.name}-link")
    try:
        one.write_bytes(b"")
        try:
            two.hardlink_to(one)
        except OSError:
            return False
        return True
    finally:
        for path in (one, two):
            with contextlib.suppress(OSError):
                path.unlink()


def _disks(settings: Settings) -> Iterator[CheckShown]:
    places = {"home": settings.home, "engines": settings.engines_dir}
    if settings.worker_dir.exists():
        places["worker"] = settings.worker_dir
    for name, place in places.items():
        there = next(
            path for path in (place.absolute(), *place.absolute().parents) if path.exists()
        )
        free = free_space(there)
        status: Status = "ok"
        if free < LOW_DISK:
            status = "broken" if free < FULL_DISK else "warning"
        words = f"{format_bytes(free)} free where {place} is"
        yield _check(f"disk ({name})", status, words, "Make room, or move it elsewhere.")
    yield _drive(settings)


def _drive(settings: Settings) -> CheckShown:
    """What the library is on, which decides how many files are hashed and copied at once."""
    drive = drive_of(settings.home, override=settings.drive)
    words = f"{_DRIVES[drive.kind]} ({drive.why}); {count(drive.streams, 'file')} at once"
    if drive.kind == "unknown":
        hint = 'If you know it, set drive = "ssd" or "hdd" in config.toml: imports may be faster.'
        return _check("drive", "note", words, hint)
    return _check("drive", "ok", words)


def _engines() -> Iterator[CheckShown]:
    for name in engines.NAMES:
        try:
            found = engines.engine(name).find()
        except EngineMissing as error:
            words = "not installed; only workers and tracking on this machine need it"
            yield _check(f"engine {name}", "note", words, error.hint_text)
        except SleapRtcError as error:
            yield _failed(f"engine {name}", error)
        except OSError as error:  # its folder may not be read, say
            yield _check(f"engine {name}", "broken", f"{error.filename}: {error.strerror}.")
        else:
            yield _check(f"engine {name}", "ok", f"{found.version}, {found.python}")


def _webrtc(settings: Settings) -> CheckShown:
    try:
        found = shell(settings.webrtc_library)
    except UsageError as error:
        words = f"no worker can be reached: {error.message}"
        return _check("WebRTC", "broken", words, error.hint_text)
    if found is not WebRtc and settings.webrtc_library == "auto":
        words = "by the portable library, which is about nine times slower than the fast one"
        hint = "pip install 'sleap-rtc[peer]', on Linux with glibc 2.34 or newer, or macOS."
        return _check("WebRTC", "note", words, hint)
    which = "fast" if found is WebRtc else "portable"
    return _check("WebRTC", "ok", f"its {which} library can be loaded")


def _ice(settings: Settings) -> CheckShown:
    urls = [url for server in settings.ice_servers for url in server.urls]
    if any(url.startswith("turn") for url in urls):
        return _check("TURN", "ok", ", ".join(urls))
    words = "no TURN server is set; strict networks on both sides can't be crossed without"
    return _check("TURN", "note", words, "If workers can't be reached, set ice_servers.")


def _labels() -> CheckShown:
    if importlib.util.find_spec("h5py") is None:
        words = "h5py isn't installed, so labels are checked by the worker alone"
        return _check("labels", "note", words, "pip install 'sleap-rtc[labels]'")
    return _check("labels", "ok", "label files can be checked here")


def _namespace() -> CheckShown:
    command = [sys.executable, "-m", "sleap_rtc.testing.netns", "--", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return _check("namespace", "note", "can't be made; only the demo and tests use one")
    if done.returncode == 0:
        return _check("namespace", "ok", "the demo can run in a network of its own")
    return _check("namespace", "note", f"{done.stderr.strip()} Only the demo and tests use one.")


# ── rooms and servers ────────────────────────────────────────────────────────


def _rooms(app: App, settings: Settings, store: DeviceStore) -> Iterator[CheckShown]:
    try:
        rooms = store.rooms()
    except SleapRtcError as error:
        yield _failed("rooms", error)
        return
    servers = dict.fromkeys([entry.server for entry in rooms])
    if settings.server is not None:
        servers.setdefault(settings.server)
    if not servers:
        hint = "sleap-rtc login SERVER, or sleap-rtc room join LINK."
        yield _check("rooms", "note", "this device is in none", hint)
    reached = set()
    if settings.offline:
        hint = "Leave out --offline, and servers are asked."
        yield _check("network", "note", "nobody is asked: sleap-rtc works offline", hint)
        servers = {}
    for server in servers:
        for check in _server(app, settings, server):
            yield check
            if check.status == "ok":
                reached.add(server)
    for entry in rooms:
        yield _certificate(store, entry)
        if entry.server in reached:
            yield _present(app, entry)


def _server(app: App, settings: Settings, server: str) -> Iterator[CheckShown]:
    name = f"server {server}"
    began = time.monotonic()
    try:
        address = parse_server(server, insecure=settings.insecure)
        app.run(_within(app.client().login(server)))
    except ServerUnreachable as error:
        yield _check(name, "broken", f"can't be reached: {error.details['why']}", CHECK)
        return
    except InvalidConfig as error:
        yield _check(name, "broken", error.details["why"], error.hint_text)
        return
    except SleapRtcError as error:
        yield _failed(name, error)
        return
    except TimeoutError:
        yield _check(name, "broken", f"no answer within {ASK_S:g} s", CHECK)
        return
    took = format_duration(time.monotonic() - began)
    yield _check(name, "ok", f"signed in, in {took}")
    yield from _clock(address)


def _clock(address: ServerAddress) -> Iterator[CheckShown]:
    """How far this machine's clock is from the server's, where the server tells its time."""
    kind: Callable[..., http.client.HTTPConnection] = (
        http.client.HTTPSConnection if address.secure else http.client.HTTPConnection
    )
    connection = kind(address.host, address.port, timeout=ASK_S)
    try:
        connection.request("HEAD", "/healthz")
        told = connection.getresponse().getheader("date")
        theirs = None if told is None else email.utils.parsedate_to_datetime(told)
    except (OSError, http.client.HTTPException, ValueError):
        return
    finally:
        connection.close()
    if theirs is None:
        return
    skew = abs((datetime.now(UTC) - theirs).total_seconds())
    words = f"{format_duration(skew)} from the server's"
    hint = "Set the clock of this machine, or of the server: certificates go by it."
    status: Status = "ok" if skew < SKEW_S else "warning" if skew < MUCH_SKEW_S else "broken"
    yield _check("clock", status, words, hint)


def _certificate(store: DeviceStore, entry: RoomEntry) -> CheckShown:
    name = f"room {entry.name}"
    now = datetime.now(UTC)
    renews = entry.role == "owner" and store.room_key(entry.room) is not None
    try:
        member = verify_chain(entry.chain, room=entry.room, now=now, who="This device")
    except (NotTrusted, DataError) as error:
        if renews:
            return _check(name, "ok", "this device owns it, and renews its own certificate")
        hint = "Ask an owner for a new invite: sleap-rtc room join LINK."
        return _check(name, "broken", error.message, hint)
    words = f"{member.role} until {member.expires.astimezone():%Y-%m-%d %H:%M}"
    if member.expires - now < SOON and not renews:
        return _check(name, "warning", words, "Ask an owner for a new invite before it ends.")
    return _check(name, "ok", words)


def _present(app: App, entry: RoomEntry) -> CheckShown:
    name = f"workers of {entry.name}"
    try:
        found = app.run(_within(app.client().workers(entry.room)))
    except SleapRtcError as error:
        return _failed(name, error)
    except TimeoutError:
        return _check(name, "broken", f"no answer within {ASK_S:g} s")
    if not found:
        hint = f"sleap-rtc worker --room {entry.name}"
        return _check(name, "note", "none is online", hint)
    names = ", ".join(presence.name for presence in found)
    return _check(name, "ok", f"{count(len(found), 'worker')} online: {names}")


async def _within(work: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(ASK_S):
        return await work
