"""Write the parts of the documents that are made from the code, or check that they are.

    python tools/docs.py [--check]

A part stands between ``<!-- made from NAME -->`` and ``<!-- end -->``; what is
between them is replaced. With ``--check`` nothing is written, and the exit code
is 1 where a document differs from the code. Below ``docs/reference`` whole files
are made (``cli/reference.py``).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from msgspec import inspect

from sleap_rtc import errors
from sleap_rtc.cli import reference
from sleap_rtc.config import all_settings
from sleap_rtc.domain import packages
from sleap_rtc.jobs import datasets, events, lifecycle, spec
from sleap_rtc.protocol import codec, direct, frames, handshake, library, link, peering, signaling
from sleap_rtc.server import api, openapi

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PART = re.compile(r"(<!-- made from ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

FORMS = {
    "[0-9a-f]{64}": "64 hex digits",
    "[0-9a-f]{128}": "128 hex digits",
    "[a-z2-7]{32}": "room id",
    "[0-9a-f-]{36}": "UUID",
}
"""What a pattern is called."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def sentence(thing: Any) -> str:
    """The first paragraph of a docstring, in Markdown."""
    text = (thing.__doc__ or "").strip().partition("\n\n")[0]
    text = re.sub(
        r":(?:class|func|data|meth):`~?([\w.]+)`", lambda m: f"`{m[1].rpartition('.')[2]}`", text
    )
    return " ".join(text.split()).replace("``", "`")


def shape(kind: inspect.Type) -> str:
    """What a field may hold, in few words."""
    match kind:
        case inspect.StructType() if kind.tag_field:
            return f"`{kind.tag}`"
        case inspect.StructType():
            return kind.cls.__name__
        case inspect.UnionType():
            return " or ".join(dict.fromkeys(shape(each) for each in kind.types))
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in kind.values)
        case inspect.IntType() | inspect.FloatType():
            return numbers(kind)
        case inspect.StrType():
            if kind.pattern:
                plain = kind.pattern.removeprefix("\\A").removesuffix("\\Z")
                return FORMS.get(plain, f"`{plain}`")
            return "text" + (f" up to {kind.max_length:,}" if kind.max_length else "")
        case inspect.BytesType():
            return "base64" + (f" of {kind.max_length:,} bytes" if kind.max_length else "")
        case inspect.VarTupleType():
            most = f"up to {kind.max_length:,} of " if kind.max_length else "list of "
            return most + shape(kind.item_type)
        case inspect.TupleType():
            return "[" + ", ".join(shape(each) for each in kind.item_types) + "]"
        case inspect.DictType():
            return f"{shape(kind.key_type)} → {shape(kind.value_type)}"
    names = {"BoolType": "yes or no", "NoneType": "null", "DateTimeType": "time, UTC"}
    return names.get(type(kind).__name__, "anything")


def numbers(kind: inspect.IntType | inspect.FloatType) -> str:
    """A number and its bounds."""
    word = "integer" if isinstance(kind, inspect.IntType) else "number"
    most = kind.le if kind.le is not None else kind.lt
    shown = "2⁵³" if most in (2**53, 2**53 + 1) else f"{most:,}" if most is not None else ""
    low = f" from {kind.ge:,}" if kind.ge else " over 0" if kind.gt == 0 else ""
    return word + low + (f" up to {shown}" if shown else "")


def fields(kind: type) -> str:
    """A message's fields; one that may be left out has a question mark."""
    told = inspect.type_info(kind)
    assert isinstance(told, inspect.StructType)  # noqa: S101
    parts = [
        f"`{field.encode_name}{'' if field.required else '?'}`: {shape(field.type)}"
        for field in told.fields
        if field.name not in ("unknown", "format")
    ]
    return "; ".join(parts) or "nothing"


def messages(union: Any) -> str:
    """A table of messages."""
    rows = [
        (f"`{kind.__struct_config__.tag}`", fields(kind), sentence(kind))
        for kind in get_args(union) or (union,)
    ]
    return table(("message", "fields", "meaning"), rows)


def values(*kinds: type) -> str:
    """A table of values that messages carry."""
    rows = [(f"**{kind.__name__}**", fields(kind), sentence(kind)) for kind in kinds]
    return table(("value", "fields", "meaning"), rows)


def limits() -> str:
    """Every bound of the protocol, from its constant."""
    rows = (
        ("a message, a block frame", codec.MAX_MESSAGE, "bytes"),
        ("a block", packages.BLOCK, "bytes"),
        ("files of a package", packages.MAX_FILES, ""),
        ("a package's listing", packages.MAX_LISTING, "bytes"),
        ("a path in a package", packages.MAX_PATH, "bytes"),
        ("content in one data frame", frames.MAX_CHUNK, "bytes"),
        ("block requests without an answer", frames.MAX_OUTSTANDING, "per connection"),
        ("requests without an answer", link.MAX_REQUESTS, "per connection and side"),
        ("answers that are kept for repeated requests", link.MAX_REQUESTS, "per connection"),
        ("candidates that are taken of one side", peering.MAX_CANDIDATES, "per attempt"),
        ("addresses of one side of a direct connection", direct.MAX_ADDRESSES, "per announcement"),
        ("a direct connection is made within", direct.WITHIN_S, "s"),
        ("time for the handshake", handshake.HANDSHAKE_SECONDS, "s"),
        ("a ping goes out every", link.PING_EVERY_S, "s"),
        ("a peer counts as silent after", link.SILENT_AFTER_S, "s without a sound"),
        ("a connection is given up after", link.DEAD_AFTER_S, "s without a sound"),
    )
    return table(
        ("what", "limit"),
        (
            (what, f"{n:,g} {unit}".strip())
            if isinstance(n, float)
            else (what, f"{n:,} {unit}".strip())
            for what, n, unit in rows
        ),
    )


def versions() -> str:
    """The versions that this sleap-rtc speaks."""
    rows = (
        ("signaling", str(signaling.SIGNALING_VERSION), "`challenge.versions`, `sign_in.version`"),
        ("handshake", str(handshake.HANDSHAKE_VERSION), "`hello.handshake`"),
        ("link", ", ".join(map(str, link.LINK_VERSIONS)), "`hello.versions`, both sign both lists"),
        ("features of link 1", ", ".join(link.FEATURES), "`hello.features`"),
    )
    return table(("protocol", "versions", "agreed on by"), rows)


def error_table() -> str:
    """Every error: its code on the wire, exit code, HTTP status and sentence."""

    def below(kind: type[errors.SleapRtcError], depth: int) -> Iterable[tuple[str, ...]]:
        yield (
            "&nbsp;&nbsp;" * depth + f"`{kind.code}`",
            str(kind.exit_code),
            str(kind.http_status),
            kind.sentence if kind.sentence != "{message}" else "(says it itself)",
        )
        for child in kind.__subclasses__():
            yield from below(child, depth + 1)

    return table(("code", "exit", "HTTP", "sentence"), below(errors.SleapRtcError, 0))


def settings() -> str:
    """Every setting."""
    rows = (
        (
            f"`{one.name}`" if one.in_file else "",
            f"`{one.env}`",
            f"`{one.flag}`" if one.flag else "",
            f"`{one.default}`" if one.default is not None else "",
            one.help,
        )
        for one in all_settings()
    )
    return table(("in the file", "environment", "flag", "default", "what it is"), rows)


def tree() -> str:
    """The packages, each with the first sentence of its docstring."""
    lines = ["```", "src/sleap_rtc/"]
    for path in sorted((ROOT / "src" / "sleap_rtc").iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith("__") or file.suffix != ".py" or not file.is_file():
            continue
        doc = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        name = path.name + ("/" if path.is_dir() else "")
        lines.append(f"  {name:<13} {doc.partition(chr(10))[0]}")
    return "\n".join([*lines, "```\n"])


def endpoints() -> str:
    """What can be asked over HTTP."""

    def name(kind: type | None) -> str:
        return f"`{kind.__name__}`" if kind else ""

    rows = (
        (f"`{one.method} {one.path}`", name(one.request), name(one.answer), one.summary)
        for one in api.ENDPOINTS
    )
    return table(("request", "body", "answer", "what it does"), rows)


def states() -> str:
    """The life cycle of a job, as a picture."""
    return f"```mermaid\n{lifecycle.picture().strip()}\n```\n"


PARTS: dict[str, Callable[[], str]] = {
    "signaling.FromServer": lambda: messages(signaling.FromServer),
    "signaling.FromDevice": lambda: messages(signaling.FromDevice),
    "peering": lambda: messages(peering.Peering),
    "handshake": lambda: messages(handshake.HandshakeMessage),
    "link.Frame": lambda: messages(link.Frame),
    "link.RequestBody": lambda: messages(link.RequestBody),
    "link.ReplyBody": lambda: messages(link.ReplyBody),
    "link.NoticeBody": lambda: messages(link.NoticeBody),
    "direct": lambda: (
        messages(direct.OpenDirect | direct.DirectOpened)
        + "\n"
        + values(direct.End, direct.Address)
    ),
    "library": lambda: values(library.ListedModel, library.FileTold),
    "jobs.spec": lambda: values(
        spec.JobSpec,
        spec.TrainSpec,
        spec.TrainStage,
        spec.TrackSpec,
        spec.ModelRef,
        packages.PackageRef,
    ),
    "jobs.datasets": lambda: messages(datasets.Dataset),
    "jobs.events": lambda: messages(events.Body),
    "server.api": endpoints,
    "limits": limits,
    "versions": versions,
    "errors": error_table,
    "settings": settings,
    "tree": tree,
    "lifecycle": states,
}


def renew(text: str) -> str:
    """The document with its made parts made anew."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}{PARTS[match[2]]()}{match[3]}"

    return PART.sub(part, text)


def main(arguments: list[str]) -> int:
    """Write or check every document; returns the exit code."""
    made = reference.files() | {"openapi.json": openapi.encoded().decode()}
    whole = {DOCS / "reference" / name: text for name, text in made.items()}
    pages = {path: path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))}
    fresh = {path: renew(text) for path, text in pages.items() if path not in whole} | whole
    stale = 0
    for path, text in fresh.items():
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if arguments == ["--check"]:
            sys.stderr.write(f"{path.relative_to(ROOT)} differs from the code; run: make docs\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if stale and arguments == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
