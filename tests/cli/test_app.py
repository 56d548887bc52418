from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from loguru import logger

from sleap_rtc.cli.app import App
from sleap_rtc.errors import InvalidConfig, UnknownModel


@pytest.fixture(autouse=True)
def quiet_again():
    yield
    logger.remove()


def test_flags_win_and_none_is_not_given(make_output, tmp_path, monkeypatch):
    monkeypatch.setenv("SLEAP_RTC_SERVER_PORT", "9000")
    app = App(make_output())
    app.flags["home"] = tmp_path
    settings = app.settings(server_host="127.0.0.2", server_port=None)
    assert settings.home == tmp_path
    assert (settings.serving.host, settings.serving.port) == ("127.0.0.2", 9000)
    # What is started from here finds the same home.
    assert os.environ["SLEAP_RTC_HOME"] == str(tmp_path)


def test_a_wrong_setting_is_named(make_output):
    with pytest.raises(InvalidConfig, match="--port"):
        App(make_output()).settings(server_port=-1)


@pytest.mark.parametrize(
    ("program", "flags", "said"),
    [
        ("client", {}, ["an error"]),
        ("client", {"log_level": "info"}, ["an error", "a word"]),
        ("worker", {}, ["an error", "a word"]),
    ],
    ids=str,
)
def test_who_logs_what_where(make_output, tmp_path, program, flags, said):
    out = make_output()
    app = App(out)
    app.flags |= {"home": tmp_path, "worker_dir": tmp_path / "w", **flags}
    app.settings(program)
    logger.info("a word")
    logger.error("an error")
    for text in ("a word", "an error"):
        assert (text in out.stderr.getvalue()) is (text in said)
    folder = tmp_path / "w" if program == "worker" else tmp_path
    log = folder / "logs" / f"{program}.log"
    assert app.logs == str(log)
    assert "a word" in log.read_text()


def test_without_a_place_for_logs_there_are_none(make_output, tmp_path):
    (tmp_path / "logs").write_text("in the way")
    out = make_output()
    app = App(out)
    app.flags["home"] = tmp_path
    app.settings()
    assert app.logs is None
    logger.error("an error")
    assert "an error" in out.stderr.getvalue()


def test_the_client_is_made_once_and_closed(make_output, tmp_path):
    app = App(make_output())
    app.flags["home"] = tmp_path
    client = app.client()
    assert app.client() is client
    assert client.library is app.library()
    assert client.library.list().entries == ()
    app.close()


def test_an_end_that_is_interrupted_says_that_the_change_is_kept(cli, home, monkeypatch):
    model = home.model("a")

    def interrupted(_registry):
        raise KeyboardInterrupt

    monkeypatch.setattr("sleap_rtc.library.registry.Registry.write_manifest", interrupted)
    done = cli("tag-model", model.id, "fly")
    monkeypatch.undo()
    assert done.code == 0
    assert "what was changed is kept" in done.err
    assert cli("list-models", "--quiet").out == "fly\n"


def test_the_library_needs_nothing_of_the_network(tmp_path):
    code = (
        "import sys; from pathlib import Path; from sleap_rtc.cli.app import App; app = App();"
        f"app.flags['home'] = Path({str(tmp_path)!r}); app.library(); app.close();"
        "print([name for name in ('websockets', 'sleap_rtc.client.api') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_failing_ends_with_the_errors_code(make_output):
    out = make_output()
    with pytest.raises(click.exceptions.Exit) as ended:
        App(out).fail(UnknownModel(name="x"))
    assert ended.value.exit_code == 3
    assert "error: There is no model 'x'" in out.stderr.getvalue()
