"""Logs: where lines go, how they look, and what never stands in them."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from sleap_rtc.auth.invites import recovery_code
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.observe.logs import HIDDEN, MAX_TEXT, redact, set_up_logs

KEY = SigningKey.from_seed(bytes(range(32)))
SIGNATURE = KEY.sign("test", b"payload").hex()
SECRETS = {
    "invite": ("join https://lab.org/join/abc#v1.c2VjcmV0 now", "c2VjcmV0"),
    "invite in quotes": ('"https://lab.org/join/abc#v1.c2VjcmV0"', "c2VjcmV0"),
    "credentials in an address": ("turn://ada:hunter2@turn.lab.org", "hunter2"),
    "signature": (f"got {SIGNATURE}", SIGNATURE),
    "set-up code": ("use JTNG-4SYN-WGA4-T45B", "4SYN"),
    "recovery code": (recovery_code(KEY), recovery_code(KEY)[10:14]),
    "PEM": (
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----",
        "MC4CAQAw",
    ),
    "cut PEM": ("-----BEGIN OPENSSH PRIVATE KEY-----\nMC4CAQAw", "MC4CAQAw"),
    "name=value": ("password=hunter2&x=1", "hunter2"),
    "repr": ("SignIn(setup_code='hun ter2', name='x')", "ter2"),
    "JSON": ('{"credential": "hunter2"}', "hunter2"),
    "header": ("Authorization: Bearer hunter2", "hunter2"),
    "API key": ("WANDB_API_KEY=hunter2", "hunter2"),
}


@pytest.fixture(autouse=True)
def no_sinks_afterwards() -> Iterator[None]:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logger.remove()
    logging.getLogger().handlers[:] = before[0]
    logging.getLogger().setLevel(before[1])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test.log").read_text().splitlines()]


def set_up(folder: Path, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "level": "debug",
        "style": "json",
        "directory": folder,
        "program": "test",
    }
    set_up_logs(**(arguments | changes))


@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS)
def test_secrets_are_hidden(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        f"device {KEY.device} signed in",
        "job 0198c9b2-6f7a-7c3e-9d41-0f8a5b2c3d4e is running",
        "GET https://lab.org/healthz 200",
        "val_loss=0.01 at epoch 3 of 10, seed: 42",
        "2026-03-01 12:00:00",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_any_text_can_be_redacted(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS)
def test_secrets_reach_no_log_however_they_come(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    style: str,
    text: str,
    secret: str,
) -> None:
    set_up(tmp_path, style=style)
    logger.info("said {}", text)
    logger.bind(thing=text).info("bound")
    logging.getLogger("a.library").warning("it says %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("it broke")
    written = (tmp_path / "test.log").read_text() + capsys.readouterr().err
    assert secret not in written
    assert written.count(HIDDEN) >= 8


def test_values_with_secret_names_are_hidden_whatever_they_are(tmp_path: Path) -> None:
    set_up(tmp_path)
    logger.bind(setup_code="abc", turn_credential="abc", token=12, name="abc").info("x")
    (line,) = lines(tmp_path)
    assert (line["setup_code"], line["turn_credential"], line["token"]) == (HIDDEN,) * 3
    assert line["name"] == "abc"


def test_a_json_line_says_when_what_where_and_about_what(tmp_path: Path) -> None:
    set_up(tmp_path)
    with logger.contextualize(connection="3fa9", job=None, epoch=3):
        logger.warning("a {} of\ntwo lines", "message")
    logger.info("afterwards")
    first, second = lines(tmp_path)
    assert first["message"] == "a message of\ntwo lines"
    assert (first["connection"], first["job"], first["epoch"]) == ("3fa9", None, 3)
    assert (first["level"], first["where"]) == ("warning", __name__)
    assert first["time"].endswith("+00:00")
    assert "connection" not in second


def test_what_is_bound_cannot_pose_as_the_line_itself(tmp_path: Path) -> None:
    set_up(tmp_path)
    logger.bind(message="forged", level="forged", _line="forged").info("real")
    (line,) = lines(tmp_path)
    assert (line["message"], line["level"]) == ("real", "info")


def test_text_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(tmp_path, style="text", directory=None)
    logger.bind(room="r").info("with {braces} and <red>tags</red>")
    line = capsys.readouterr().err
    assert line.endswith("with {braces} and <red>tags</red> room=r\n")
    assert " INFO " in line
    assert list(tmp_path.iterdir()) == []


def test_levels_of_file_and_terminal_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(tmp_path, level="info", stderr_level="error")
    logger.debug("a")
    logger.info("b")
    logger.error("c")
    assert [line["message"] for line in lines(tmp_path)] == ["b", "c"]
    assert [json.loads(t)["message"] for t in capsys.readouterr().err.splitlines()] == ["c"]


def test_tracebacks_have_no_values_of_variables(tmp_path: Path) -> None:
    set_up(tmp_path)

    def fail(hidden_value: str) -> None:
        raise ValueError("broken")

    try:
        fail("s3cr3t-of-a-variable"[::-1])
    except ValueError:
        logger.exception("it broke")
    (line,) = lines(tmp_path)
    assert "ValueError: broken" in line["exception"]
    assert "s3cr3t-of-a-variable"[::-1] not in line["exception"]


def test_the_file_is_private_and_long_texts_are_cut(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    set_up(folder)
    logger.info("x" * 10 * MAX_TEXT)
    assert stat.S_IMODE((folder / "test.log").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (line,) = lines(folder)
    assert line["message"] == "x" * MAX_TEXT


def test_libraries_come_out_with_their_own_names_and_levels(tmp_path: Path) -> None:
    set_up(tmp_path)
    logging.getLogger("uvicorn.error").error("broken %d", 5)
    logging.getLogger("x").log(25, "odd level")
    first, second = lines(tmp_path)
    assert (first["message"], first["level"], first["where"]) == ("broken 5", "error", __name__)
    assert second["message"] == "odd level"


def test_a_peers_words_make_no_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(level="debug", style="text", directory=None, program="test")
    said = f"no\n2026-03-01 12:00:00.000 INFO    server: all is well\x1b[2J\n{SIGNATURE}"
    logger.bind(why=said).warning("it refused: {}", said)
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert "refused: no\\n2026-03-01" in line
    assert SIGNATURE not in line
