from __future__ import annotations

import email.utils
import http.server
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from loguru import logger

from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.cli import checks
from sleap_rtc.cli.app import App
from sleap_rtc.cli.checks import examine
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.testing.made_room import MadeRoom
from sleap_rtc.transports import portable, webrtc


@pytest.fixture
def app(make_output) -> Iterator[App]:
    made = App(make_output())
    yield made
    made.close()
    logger.remove()


def look(app):
    return {check.name: check for check in examine(app)}


def test_a_new_machine(app, own_home, monkeypatch, tmp_path):
    monkeypatch.setenv("SLEAP_RTC_ENGINES", str(tmp_path / "engines"))
    found = look(app)
    assert found["program"].message.startswith("sleap-rtc ")
    assert found["home"].status in ("ok", "note")
    assert found["device key"].status == "ok"
    assert found["rooms"].status == "note"
    assert found["disk (home)"].status in ("ok", "warning")
    assert found["engine sleap-nn"].status == "note"
    assert found["engine tiny"].status == "ok"
    assert found["WebRTC"].status == "ok"
    assert found["TURN"].status == "note"
    assert found["labels"].status == "ok"
    assert found["namespace"].status in ("ok", "note")
    assert not any(check.status == "broken" for check in found.values())
    left = [path.name for path in (own_home / ".sleap-rtc").iterdir()]
    assert not any("doctor" in name for name in left)


def test_settings_that_are_wrong(app, monkeypatch):
    monkeypatch.setenv("SLEAP_RTC_SERVER_PORT", "many")
    found = look(app)
    assert found["settings"].status == "broken"
    assert "SLEAP_RTC_SERVER_PORT" in found["settings"].message
    assert "home" not in found


def test_a_key_that_others_can_read(app, own_home):
    home = own_home / ".sleap-rtc"
    DeviceStore(home).device_key()
    (key,) = home.glob("devices/*/device.key")
    key.chmod(0o644)
    found = look(app)
    assert found["device key"].status == "broken"
    assert "chmod 600" in found["device key"].hint


def test_a_disk_that_is_nearly_full(app, monkeypatch):
    monkeypatch.setattr(checks, "free_space", lambda _: 1_000_000_000)
    assert look(app)["disk (home)"].status == "warning"
    monkeypatch.setattr(checks, "free_space", lambda _: 1_000)
    assert look(app)["disk (home)"].status == "broken"


def test_the_kind_of_drive(app, monkeypatch):
    assert look(app)["drive"].status in ("ok", "note")
    monkeypatch.setenv("SLEAP_RTC_DRIVE", "hdd")
    found = look(App(app.out))["drive"]
    assert found.status == "ok"
    assert found.message == "a hard disk (set); 1 file at once"


def test_a_home_that_cannot_be_written(app, own_home, monkeypatch):
    (own_home / ".sleap-rtc").mkdir()

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks, "_can_link", refused)
    assert look(app)["home"].status == "broken"
    monkeypatch.setattr(checks, "_can_link", lambda _: False)
    assert look(app)["hard links"].status == "warning"


def test_a_turn_server(app, monkeypatch):
    monkeypatch.setenv("SLEAP_RTC_ICE_SERVERS", "turn:10.77.0.9:3478")
    assert look(app)["TURN"].status == "ok"


def test_an_engine_that_may_not_be_looked_at_hides_nothing_else(app, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied", "/engines")  # root is refused nothing

    monkeypatch.setattr(checks.engines, "engine", refuse)
    found = look(app)
    assert found["engine tiny"].status == "broken"
    assert found["engine tiny"].message == "/engines: Permission denied."
    assert found["WebRTC"].status == "ok"


def test_packages_that_are_missing(app, monkeypatch):
    assert look(app)["WebRTC"].message == "its fast library can be loaded"
    for shell in (webrtc, portable):
        monkeypatch.setattr(shell, "library", shell.library.__wrapped__)
    monkeypatch.setitem(sys.modules, "reactor_webrtc", None)
    found = look(app)
    assert (found["WebRTC"].status, "portable" in found["WebRTC"].message) == ("note", True)
    monkeypatch.setitem(sys.modules, "aiortc", None)
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda _: None)
    found = look(app)
    assert found["WebRTC"].status == "broken"
    assert "sleap-rtc[peer]" in found["WebRTC"].hint
    assert found["labels"].status == "note"
    assert found["engine tiny"].status == "note"


def keep(home, made, *, role="owner", owned=True):
    """Keep a room of a device that isn't reached by any server."""
    store = DeviceStore(home)
    if owned:
        store.save_room_key(made.room_key)
    store.save_room(
        RoomEntry(
            room=made.room,
            name="lab",
            server="http://127.0.0.1:9",
            role=role,
            chain=made.owner_chain,
        )
    )


def test_certificates(app, own_home):
    home = own_home / ".sleap-rtc"
    now = datetime.now(UTC)
    for age, owned, status in (
        (timedelta(0), True, "ok"),
        (timedelta(days=26), False, "warning"),
        (timedelta(days=40), False, "broken"),
    ):
        keep(home, MadeRoom(now=now - age), owned=owned)
        (entry,) = DeviceStore(home).rooms()
        if owned:
            assert checks._certificate(DeviceStore(home), entry).status == "ok"
            (home / "rooms" / f"{entry.room}.key").unlink()
        else:
            assert checks._certificate(DeviceStore(home), entry).status == status
    keep(home, MadeRoom(now=now - timedelta(days=40)))
    (entry,) = DeviceStore(home).rooms()
    assert "renews its own" in checks._certificate(DeviceStore(home), entry).message


def test_a_server_that_is_away(app, own_home):
    keep(own_home / ".sleap-rtc", MadeRoom(now=datetime.now(UTC)))
    found = look(app)
    assert found["server http://127.0.0.1:9"].status == "broken"
    assert found["room lab"].status == "ok"
    assert "workers of lab" not in found


@pytest.mark.slow
def test_a_server_that_is_there(app, host, cli):
    cli("login", host.url, "--code", host.code)
    cli("room", "create", "lab")
    found = look(app)
    assert found[f"server {host.url}"].status == "ok"
    assert found["clock"].status == "ok"
    assert found["room lab"].status == "ok"
    assert found["workers of lab"].status == "note"
    assert "sleap-rtc worker --room lab" in found["workers of lab"].hint


@pytest.mark.slow
def test_a_server_that_does_not_know_this_device(app, host, monkeypatch):
    monkeypatch.setenv("SLEAP_RTC_SERVER", host.url)
    found = look(app)[f"server {host.url}"]
    assert found.status == "broken"
    assert "sleap-rtc login" in found.hint


@pytest.mark.parametrize(
    ("server", "said", "hint"),
    [
        ("not an address", "its host is neither a name nor an address", "Give it as https://host"),
        ("https://", "it names no host", "Give it as https://host"),
        ("http://127.0.0.1:99999", "its port is no number", "Give it as https://host"),
        ("http://127.0.0.1:9", "can't be reached: nothing listens there", "Check the address"),
        ("http://{other}", "what answers there is no sleap-rtc server", "Check the address"),
        ("https://{other}", "it doesn't speak TLS there", "Check the address"),
    ],
)
def test_what_is_no_server(app, told_time, server, said, hint):
    server = server.format(other=told_time[1].dialled)
    app.flags["server"] = server
    found = look(app)[f"server {server}"]
    assert found.status == "broken"
    assert said in found.message
    assert found.hint.startswith(hint)


@pytest.fixture
def told_time():
    """A server that tells the time that it is told to tell."""
    said = {"date": datetime.now(UTC)}

    class Teller(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response_only(200)
            if said["date"] is not None:
                self.send_header("Date", email.utils.format_datetime(said["date"], usegmt=True))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Teller)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield said, ServerAddress(host="127.0.0.1", port=server.server_port, secure=False)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("off", "status"), [(1, "ok"), (-120, "warning"), (120, "warning"), (7200, "broken")]
)
def test_clocks(told_time, off, status):
    said, address = told_time
    said["date"] = datetime.now(UTC) + timedelta(seconds=off)
    (found,) = checks._clock(address)
    assert found.status == status


def test_a_clock_that_is_not_told(told_time):
    said, address = told_time
    said["date"] = None
    assert list(checks._clock(address)) == []
    assert list(checks._clock(ServerAddress(host="127.0.0.1", port=9, secure=False))) == []
