from __future__ import annotations

import msgspec
import pytest

from sleap_rtc.cli.room_documents import LoginDocument

pytestmark = pytest.mark.slow


def config(own_home):
    return own_home / ".sleap-rtc" / "config.toml"


def test_with_a_code_from_standard_input(host, cli, own_home):
    done = cli("login", host.url, "--code-file", "-", stdin=f"{host.code}\n")
    assert done.code == 0
    assert host.url in done.out
    assert host.code not in done.out + done.err
    assert "sleap-rtc room create" in done.err
    assert config(own_home).read_text() == f'server = "{host.url}"\n'
    # It is known from now on, and the server is too.
    again = cli("login", "--json")
    told = msgspec.convert(again.document, LoginDocument)
    assert (told.server, told.may_create_rooms) == (host.url, True)


def test_with_a_code_from_a_file_or_the_environment(host, cli, tmp_path, monkeypatch):
    file = tmp_path / "code"
    file.write_text(host.code)
    assert cli("--home", tmp_path / "a", "login", host.url, "--code-file", file).code == 0
    monkeypatch.setenv("SLEAP_RTC_SETUP_CODE", "AAAA-AAAA-AAAA-AAAA")
    done = cli("--home", tmp_path / "b", "login", host.url)
    assert done.code == 6
    assert "AAAA" not in done.err


def test_a_person_is_asked_for_the_code(host, cli):
    done = cli("login", host.url, terminal=True, stdin=f"{host.code}\n")
    assert done.code == 0
    assert "This server doesn't know this device yet." in done.err
    assert "Set-up code, as the server printed it:" in done.err


def test_nobody_is_asked_without_a_terminal(host, cli):
    done = cli("login", host.url)
    assert done.code == 6
    assert "not signed in" in done.err
    assert f"hint: sleap-rtc login {host.url} --code-file - reads" in done.err


def test_what_the_file_of_settings_says_stays(host, cli, own_home):
    config(own_home).parent.mkdir()
    config(own_home).write_text('name = "laptop"\n[[ice_servers]]\nurls = ["stun:10.0.0.1:3478"]\n')
    assert cli("login", host.url, "--code", host.code).code == 0
    assert config(own_home).read_text().startswith(f'server = "{host.url}"\nname = "laptop"\n')
    config(own_home).write_text('server = "https://other.example"\n')
    assert cli("login", host.url).code == 0
    assert config(own_home).read_text() == 'server = "https://other.example"\n'


def test_no_server_there(cli):
    done = cli("login", "http://127.0.0.1:9", "--json")
    assert done.code == 5
    assert done.document["error"]["code"] == "server_unreachable"


def test_which_server(cli):
    done = cli("login")
    assert done.code == 2
    assert "Which server?" in done.err


def test_no_tls_beyond_this_machine(cli):
    done = cli("login", "http://lab.invalid")
    assert done.code == 2
    assert "--insecure" in done.err
