"""Logs: to stderr and to ``<home>/logs/<program>.log``, as text or JSON, without secrets.

Everything passes :func:`redact` here, values and tracebacks included, so that
it doesn't matter who logged it or how. What a line is about
(connection, job, room) is added with ``logger.contextualize`` and stands in
every line below it. Libraries that use ``logging`` come out here too.

A text line, and the same as JSON::

    2026-03-01 12:00:00.123 INFO    server.hub: entered room … connection=3fa9
    {"time": "…Z", "level": "info", "where": "server.hub", "message": "…", "connection": "3fa9"}
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import sys
import traceback
import unicodedata
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import msgspec
from loguru import logger

from sleap_rtc.observe.logfile import LogFile

if TYPE_CHECKING:
    from loguru import Record

KEEP: Final = 5
"""Rotated files that are kept of each log."""
ROTATE: Final = 10_000_000
"""Bytes after which a new file is begun."""
HIDDEN: Final = "[hidden]"
MAX_TEXT: Final = 16_000
"""Characters of a message, a value or a traceback that are written."""

_SENSITIVE: Final = (
    r"pass(?:word|phrase|wd)?|secret\w*|token|api[_-]?key|private[_-]?key|credentials?|"
    r"authorization|signature|set-?up[_ -]?codes?|recovery[_ -]?codes?|cookie"
)
_SECRET_NAME: Final = re.compile(rf"(?:\w*[_-])?(?:{_SENSITIVE})", re.IGNORECASE)
_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # PEM keys, whole.
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*KEY-----|\Z)", re.DOTALL
        ),
        HIDDEN,
    ),
    # The fragment of a link is an invite's secret half.
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s#\"'<>]{0,2000})#[^\s\"'<>]+", re.IGNORECASE),
        rf"\1#{HIDDEN}",
    ),
    # user:password@ in an address.
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/@\"'<>]{1,500}@", re.IGNORECASE),
        rf"\1{HIDDEN}@",
    ),
    # name=value, "name": "value", Authorization: Bearer …
    (
        re.compile(
            rf"((?:{_SENSITIVE})[\"']?\s*[:=]\s*)(?:b?\"[^\"]*\"|b?'[^']*'|"
            r"(?:bearer|basic)\s+\S+|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Ed25519 signatures in hex.
    (re.compile(r"\b[0-9a-f]{128}\b"), HIDDEN),
    # Set-up codes and recovery codes.
    (re.compile(r"\b[0-9A-Z]{4}(?:-[0-9A-Z]{4}){3,}\b"), HIDDEN),
)


def redact(text: str) -> str:
    """The text with what looks like a secret hidden.

    It is the last of several guards, not the first: code doesn't log secrets to begin with.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def set_up_logs(
    *,
    level: str,
    style: Literal["text", "json"],
    directory: Path | None,
    program: str,
    stderr_level: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send all logs of this process where they belong; what was set up before counts no more.

    Args:
        level: The least that is written to the file: ``debug``, ``info``, ``warning``, ``error``.
        style: How lines look.
        directory: Folder of the log files, made if need be; None for none. A line that can't be
            written to its file later is lost, and that is said once.
        program: Names the file: ``server``, ``worker``, ``client``.
        stderr_level: The least that is written to stderr; as the file's unless given.
        stream: Takes the place of stderr: a terminal on which something is drawn, for instance.
    """
    logger.remove()
    line = _json_line if style == "json" else _text_line

    def form(record: Record) -> str:
        record["extra"]["_line"] = line(record)
        return "{extra[_line]}\n"

    terminal = stream or sys.stderr
    logger.add(
        terminal, level=(stderr_level or level).upper(), format=form, colorize=False, catch=True
    )
    if directory is not None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

        def complain(why: str) -> None:
            # Not by the log, which is being written at this moment.
            plain = {"level": "warning", "where": "observe.logs", "message": why}
            text = msgspec.json.encode(plain).decode() if style == "json" else f"warning: {why}"
            with contextlib.suppress(OSError, ValueError):
                terminal.write(f"{text}\n")
                terminal.flush()

        path = directory / f"{program}.log"
        logger.add(
            LogFile(path, most=ROTATE, keep=KEEP, complain=complain),
            level=level.upper(),
            format=form,
            colorize=False,
            catch=True,
        )
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)


def _text_line(record: Record) -> str:
    extra = "".join(f" {name}={_plain(value)}" for name, value in _extra(record).items())
    moment = f"{record['time']:YYYY-MM-DD HH:mm:ss.SSS}"
    head = f"{moment} {record['level'].name:<7} {_where(record)}: {record['message']}{extra}"
    # Each is cleaned while its lines are whole: a secret's edges are found by what is around it.
    trace = _clean(_exception(record)).splitlines()
    return "\n".join(_visible(line) for line in (_clean(head), *trace))


def _visible(text: str) -> str:
    """The text in one line and without what steers a terminal, since peers' words are in it."""
    return "".join(
        repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs") or c in "\u2028\u2029" else c
        for c in text
    )


def _json_line(record: Record) -> str:
    # What the line says of itself wins over what was bound to it under the same name.
    plain = {name: _plain(value) for name, value in _extra(record).items()} | {
        "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds"),
        "level": record["level"].name.lower(),
        "where": _where(record),
        "message": _clean(record["message"]),
    }
    if exception := _exception(record):
        plain["exception"] = _clean(exception)
    return msgspec.json.encode(plain).decode("utf-8")


def _extra(record: Record) -> Mapping[str, Any]:
    return {
        name: HIDDEN if _SECRET_NAME.fullmatch(name) else value
        for name, value in record["extra"].items()
        if name != "_line"
    }


def _plain(value: object) -> Any:
    """A bound value as JSON has it: numbers as they are, everything else as its text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _clean(str(value))


def _clean(text: str) -> str:
    # Cut twice: a pattern is slow on megabytes, and must not miss a secret that the cut halves.
    return redact(text[: 2 * MAX_TEXT])[:MAX_TEXT]


def _where(record: Record) -> str:
    return (record["name"] or "?").removeprefix("sleap_rtc.")


def _exception(record: Record) -> str:
    """The traceback without the values of variables, which may be secrets."""
    found = record["exception"]
    if found is None or found.type is None:
        return ""
    return "".join(traceback.format_exception(found.type, found.value, found.traceback))


class _ToLoguru(logging.Handler):
    """Takes records of libraries that use ``logging``."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        frame, depth = inspect.currentframe(), 0
        while frame is not None and (depth == 0 or frame.f_code.co_filename == logging.__file__):
            frame, depth = frame.f_back, depth + 1
        logger.opt(depth=depth, exception=record.exc_info).log(level, record.getMessage())
