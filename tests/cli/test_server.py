"""The server's commands, as processes."""

from __future__ import annotations

import msgspec
import pytest

from sleap_rtc.cli.machine_documents import ServerCodeDocument, ServerDocument

pytestmark = pytest.mark.slow


def test_it_prints_its_address_and_code_once_and_ends_well(host, start, tmp_path):
    assert host.url.startswith("http://127.0.0.1:")
    assert host.code
    assert host.process.terminate() == 0
    # A second start shows a new code, for nobody has used the first one.
    where = ("--data-dir", tmp_path / "data", "--port", 0, "--stun-port", 0)
    again = start(tmp_path / "host", "server", *where)
    first = again.popen.stdout.readline()
    assert first.split()[:1] == ["Server"]
    assert "Set-up code" in again.popen.stdout.readline()
    again.interrupt()
    ended = again.end()
    assert ended.code == 0
    assert "The server has stopped." in ended.err


def test_the_document(host):
    told = {
        "url": host.url,
        "port": int(host.url.rpartition(":")[2]),
        "stun_port": 0,
        "data_dir": host.data_dir,
        "setup_code": host.code,
    }
    assert msgspec.to_builtins(msgspec.convert(told, ServerDocument)) == told


def test_two_servers_on_one_folder(host, start, tmp_path):
    second = start(tmp_path / "host", "server", "--data-dir", host.data_dir, "--port", 0).end()
    assert second.code == 4
    assert "in use by another process" in second.err
    assert second.out == ""


def test_a_code_for_one_more_device(host, cli):
    done = cli("server-code", "--data-dir", host.data_dir)
    assert done.code == 0
    (code,) = done.out.split()
    assert code != host.code
    assert code not in done.err
    shown = cli("server-code", "--data-dir", host.data_dir, "--json").document
    msgspec.convert(shown, ServerCodeDocument)


def test_a_code_of_no_server(cli, tmp_path):
    done = cli("server-code", "--data-dir", tmp_path / "none")
    assert done.code == 2
    assert "there is no folder" in done.err
    assert done.out == ""


def test_a_wrong_flag_is_named(cli):
    assert "--port" in cli("server", "--port", "-1").err
    assert cli("server", "--port", "-1").code == 2
