"""Settings: each declared once, below, with its help, its flag and its default.

A setting ``server_port`` has the same name everywhere::

    --port 9000                     a flag, where it makes sense, wins over
    SLEAP_RTC_SERVER_PORT=9000      the environment, which wins over
    server_port = 9000              the file <home>/config.toml, which wins over
    8765                            the default

``SLEAP_RTC_HOME`` moves the home, ``~/.sleap-rtc``: devices' keys, rooms, the
library and the file of settings itself. In the file a relative path counts from
the home, elsewhere from the current directory; ``~`` is the user's.

:func:`resolve` is pure; :func:`load` reads the environment and the file.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from sleap_rtc.errors import InvalidConfig

ENV_PREFIX: Final = "SLEAP_RTC_"
FILE_NAME: Final = "config.toml"
MAX_FILE: Final = 1024 * 1024
"""Bytes of the largest file of settings that is read."""

_ICE_URL: Final = re.compile(r"(stuns?:[^\s?@]{1,255}|turns?:[^\s@]{1,255})")
_AMOUNT: Final = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)\s*([kmg]?)b?(?:/s)?", re.IGNORECASE)
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BYTES: Final = frozenset(
    {
        "cache_size",
        "large_file_threshold",
        "limit_rate",
        "multipart_chunk_size",
        "server_storage_quota",
        "worker_keep_free",
        "worker_keep_jobs_size",
    }
)
"""Settings that may be given with a unit."""

T = TypeVar("T", bound=msgspec.Struct)


class About(msgspec.Struct, frozen=True):
    """What is declared of a setting beside its type.

    Attributes:
        help: One sentence.
        flag: The command line's name for it, where it makes sense there.
        env: Its environment variable, where that isn't made from its name.
    """

    help: str
    flag: str | None = None
    env: str | None = None


class Ice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A STUN or TURN server: ``stun:host:port``, ``turn:host:port?transport=tcp``, ``turns:…``.

    The credential is in no ``repr``.
    """

    urls: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]
    username: Annotated[str, Meta(max_length=512)] = ""
    credential: Annotated[str, Meta(max_length=512)] = ""

    def __repr__(self) -> str:
        return f"Ice(urls={self.urls!r})"


Port = Annotated[int, Meta(ge=0, le=65535)]
WebRtcLibrary = Literal["auto", "fast", "portable"]
Transport = Literal["auto", "webrtc", "s3", "direct", "local"]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sleap-rtc server`` needs; in names these begin with ``server_``."""

    data_dir: Annotated[
        Path, About("Folder of the server's database, on a local disk.", flag="--data-dir")
    ]
    host: Annotated[str, About("Address to listen on.", flag="--host")] = "127.0.0.1"
    port: Annotated[Port, About("TCP port to listen on; 0 takes a free one.", flag="--port")] = 8765
    stun_port: Annotated[
        Port, About("UDP port that answers STUN; 0 turns it off.", flag="--stun-port")
    ] = 3478
    public_urls: Annotated[
        tuple[str, ...],
        Meta(max_length=16),
        About("Addresses under which devices reach the server.", flag="--public-url"),
    ] = ()
    behind_proxy: Annotated[
        bool, About("A proxy in front of the server speaks TLS.", flag="--behind-proxy")
    ] = False
    tls_cert: Annotated[
        Path | None, About("PEM file of the certificate chain.", flag="--tls-cert")
    ] = None
    tls_key: Annotated[Path | None, About("PEM file of its private key.", flag="--tls-key")] = None
    storage: Annotated[
        Literal["folder", "s3", "off"],
        About("Where rooms' files are kept: in a folder of the server, in buckets, or nowhere."),
    ] = "folder"
    storage_dir: Annotated[
        Path | None, About("That folder, where it isn't to be in the server's own.")
    ] = None
    storage_quota: Annotated[
        int, Meta(ge=0), About("Bytes that each room may keep, as 500GB; 0 for any number.")
    ] = 10**12
    storage_files: Annotated[
        int, Meta(ge=0), About("Files that each room may keep; 0 for any number.")
    ] = 1_000_000


Days = Annotated[float, Meta(ge=0, le=36_500)]


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much a worker takes on and keeps; in names these begin with ``worker_``."""

    patience: Annotated[
        float,
        Meta(ge=0, le=86_400),
        About("Seconds that a job waits for data nobody offers, before others have their turn."),
    ] = 60.0
    max_waiting: Annotated[
        int, Meta(ge=1, le=100_000), About("Jobs that may wait on a worker at a time.")
    ] = 500
    max_waiting_each: Annotated[
        int, Meta(ge=1, le=100_000), About("Jobs of one device that may wait on a worker.")
    ] = 50
    max_files: Annotated[
        int, Meta(ge=1, le=1_000_000), About("Files that come with a job, in one package.")
    ] = 10_000
    keep_free: Annotated[
        int, Meta(ge=0), About("Bytes of disk that a worker's new jobs leave free, as 5GB.")
    ] = 10**9
    shared: Annotated[
        tuple[Path, ...],
        Meta(max_length=64),
        About("Folders, on disks that others see too, whose files jobs may name by their paths."),
    ] = ()
    keep_inputs: Annotated[
        Days, About("Days that a worker keeps data which no job needs any more.")
    ] = 14.0
    keep_partial: Annotated[
        Days, About("Days that a worker keeps what was left unfinished, and nobody asks for.")
    ] = 3.0
    keep_jobs: Annotated[
        Days, About("Days that a worker keeps logs and predictions of jobs that have ended.")
    ] = 90.0
    keep_jobs_size: Annotated[
        Annotated[int, Meta(ge=0)],
        About(
            "Bytes that these may take, as 20GB, those of the last worker_keep_partial days aside."
        ),
    ] = 20_000_000_000


BucketName = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z",
        description="the name of a bucket, which is 3 to 63 of a-z, 0-9, '.' and '-', as lab-rooms",
    ),
]
StoreUrl = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[^\s/?#@]{1,253}/?\Z",
        description="the address of a store, which is http:// or https:// and a host, and no path, "
        "as https://s3.lab:9000",
    ),
]
Region = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9-]{1,40}\Z",
        description="the name of a region, which is of a-z, 0-9 and '-', as eu-central-1",
    ),
]


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where S3 is, for who speaks with it; in names these begin with ``storage_``.

    Credentials are no settings: they come from the places that every tool of S3 knows.
    """

    profile: Annotated[
        Literal["development", "production"],
        About("What is put up with: development speaks with a store that has no TLS."),
    ] = "production"
    uploads_bucket: Annotated[BucketName, About("Bucket for what stays a day.")] = (
        "sleap-rtc-uploads"
    )
    rooms_bucket: Annotated[BucketName, About("Bucket for what rooms keep.")] = "sleap-rtc-rooms"
    region: Annotated[Region, About("Region of both buckets.")] = "us-east-1"
    endpoint: Annotated[
        StoreUrl | None, About("Address of a store that is not Amazon's, as https://s3.lab:9000.")
    ] = None
    public_endpoint: Annotated[
        StoreUrl | None, About("The same store as devices reach it, where that is another address.")
    ] = None
    origins: Annotated[
        tuple[str, ...],
        Meta(max_length=16),
        About("Addresses of pages from which browsers upload."),
    ] = ()
    kms_key: Annotated[
        Annotated[str, Meta(max_length=2_048)],
        About("Key that the store encrypts with; its own, where none is named."),
    ] = ""
    log_bucket: Annotated[
        BucketName | None, About("Bucket that takes the access logs; it must be there.")
    ] = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, checked."""

    home: Annotated[Path, About("Keys, rooms, library and settings.", flag="--home")]
    name: Annotated[str, Meta(min_length=1, max_length=64), About("What this device is called.")]
    worker_dir: Annotated[Path, About("Where a worker keeps its files.", flag="--dir")]
    engines_dir: Annotated[Path, About("Environments of the engines.", env=f"{ENV_PREFIX}ENGINES")]
    serving: ServerSettings
    working: WorkerSettings = WorkerSettings()
    storage: StorageSettings = StorageSettings()
    sleap_nn_python: Annotated[
        Path | None, About("Python of an environment that has sleap-nn already, to use as it is.")
    ] = None
    server: Annotated[str | None, About("Server to talk to.", flag="--server")] = None
    insecure: Annotated[
        bool,
        About("Speak without TLS beyond this machine, on a trusted network.", flag="--insecure"),
    ] = False
    offline: Annotated[
        bool,
        About("Ask nobody: what is known here is shown, the rest fails at once.", flag="--offline"),
    ] = False
    ice_servers: Annotated[
        tuple[Ice, ...], Meta(max_length=8), About("STUN and TURN servers to use and to tell.")
    ] = ()
    webrtc_library: Annotated[
        WebRtcLibrary,
        About("Library for connections: the fast one, the portable one, or what can be loaded."),
    ] = "auto"
    transport: Annotated[
        Transport,
        About(
            "Way that content takes first: auto, webrtc, s3, direct or local.", flag="--transport"
        ),
    ] = "auto"
    limit_rate: Annotated[
        Annotated[
            int,
            Meta(ge=1, description="a rate of 1 byte or more, as 10MB; without one none is set"),
        ]
        | None,
        About("Bytes per second of transfers, as 10MB.", flag="--limit-rate"),
    ] = None
    large_file_threshold: Annotated[
        Annotated[int, Meta(ge=0)],
        About("Bytes from which content goes by storage rather than by a peer link, as 100MB."),
    ] = 100_000_000
    multipart_chunk_size: Annotated[
        Annotated[int, Meta(ge=5 * 1024 * 1024, le=5 * 1024**3)],
        About("Bytes of the largest part that is sent to storage, as 100MB."),
    ] = 100_000_000
    max_concurrent_parts: Annotated[
        Annotated[int, Meta(ge=1, le=64)], About("Parts that are sent to storage at once.")
    ] = 10
    cache_dir: Annotated[Path, About("Folder for what was fetched from storage.")]
    cache_size: Annotated[
        Annotated[int, Meta(ge=0)], About("Bytes that this folder may grow to, as 50GB.")
    ] = 50_000_000_000
    drive: Annotated[
        Literal["auto", "ssd", "hdd", "network", "memory", "unknown"],
        About("Kind of the drives that models are on, where it can't be told."),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], About("The least that is logged.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], About("How log lines look.")] = "text"


class Setting(msgspec.Struct, frozen=True):
    """One setting as documentation and command line want it.

    Attributes:
        name: Its name, which is also its key in the file.
        env: Its environment variable.
        help: One sentence.
        flag: Its flag, or None.
        default: As text; None where it depends on the machine or there is none.
        in_file: Whether the file may set it: all but the home, which holds the file.
        many: Whether it is a list: separated by commas in the environment.
        kind: The type that its value must have.
    """

    name: str
    env: str
    help: str
    flag: str | None
    default: str | None
    in_file: bool
    many: bool
    kind: Any


@functools.cache
def all_settings() -> tuple[Setting, ...]:
    """Every setting, in the order of their declaration."""
    return (
        *_declared(Settings, ""),
        *_declared(ServerSettings, "server_"),
        *_declared(WorkerSettings, "worker_"),
        *_declared(StorageSettings, "storage_"),
    )


def _declared(kind: type[msgspec.Struct], prefix: str) -> list[Setting]:
    found = []
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        metadata = getattr(hints[field.name], "__metadata__", ())
        about = next((item for item in metadata if isinstance(item, About)), None)
        if about is None:
            continue
        name = prefix + field.name
        given = field.default is not msgspec.NODEFAULT and field.default not in (None, ())
        found.append(
            Setting(
                name=name,
                env=about.env or f"{ENV_PREFIX}{name.upper()}",
                help=about.help,
                flag=about.flag,
                default=_shown(field.default) if given else None,
                in_file=name != "home",
                many=get_origin(_bare(hints[field.name])) is tuple,
                kind=hints[field.name],
            )
        )
    return found


def _bare(kind: Any) -> Any:
    """A declared type without what is declared beside it."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Machine(msgspec.Struct, frozen=True):
    """What defaults depend on.

    Attributes:
        user_home: The user's home directory.
        cache: The user's cache directory for sleap-rtc.
        host_name: The machine's name.
    """

    user_home: Path
    cache: Path
    host_name: str


def find_home(
    flags: Mapping[str, object], environment: Mapping[str, str], *, user_home: Path
) -> Path:
    """Where the home is; the file of settings is read from there."""
    given = flags.get("home") or environment.get(f"{ENV_PREFIX}HOME")
    return _path(given, user_home) if given else user_home / ".sleap-rtc"


def resolve(
    *,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Mapping[str, object],
    machine: Machine,
) -> Settings:
    """The settings that hold.

    Args:
        flags: By name, as given on the command line; None and () count as not given.
        environment: The process's; an empty variable counts as not set.
        file: What the file of settings says, parsed.
        machine: What defaults depend on.

    Raises:
        InvalidConfig: A value isn't of its setting's type, or nothing has that name.
    """
    home = find_home(flags, environment, user_home=machine.user_home)
    file_path = home / FILE_NAME
    settings = all_settings()
    _check_names(file, [s.name for s in settings if s.in_file], where=str(file_path))
    _check_names(flags, [s.name for s in settings], where="the command line")
    values: dict[str, object] = {
        "home": home,
        "name": _device_name(machine.host_name),
        "worker_dir": home / "worker",
        "engines_dir": machine.cache / "engines",
        "server_data_dir": home / "server",
        "cache_dir": home / "cache",
    }
    for setting in settings:
        if setting.name == "home":
            continue
        flag = flags.get(setting.name)
        if flag is not None and flag != ():
            where, plain, base = setting.flag or setting.name, flag, None
        elif text := environment.get(setting.env):
            where, plain, base = setting.env, _from_text(setting, text), None
        elif setting.name in file:
            where, plain, base = f"{file_path}: {setting.name}", file[setting.name], home
        else:
            continue
        values[setting.name] = _convert(setting, plain, where, machine.user_home, base)
    serving = _taken(values, ServerSettings, "server_")
    working = _taken(values, WorkerSettings, "worker_")
    storage = _taken(values, StorageSettings, "storage_")
    groups = {"serving": serving, "working": working, "storage": storage}
    return Settings(**values, **groups)  # type: ignore[arg-type]


def _taken(values: dict[str, object], kind: type[T], prefix: str) -> T:
    """The settings of one kind, taken out of all that were given."""
    names = [n for n in kind.__struct_fields__ if prefix + n in values]
    return kind(**{name: values.pop(prefix + name) for name in names})


def load(flags: Mapping[str, object] | None = None) -> Settings:
    """The settings of this process: flags, environment, file, defaults.

    Raises:
        InvalidConfig: The file can't be read, or a value in it or elsewhere is wrong.
    """
    import platform  # noqa: PLC0415 - both only matter here, and --help must stay quick

    import platformdirs  # noqa: PLC0415

    user_home = Path.home()
    machine = Machine(
        user_home=user_home,
        cache=platformdirs.user_cache_path("sleap-rtc"),
        host_name=platform.node(),
    )
    flags = flags or {}
    home = find_home(flags, os.environ, user_home=user_home)
    return resolve(
        flags=flags,
        environment=os.environ,
        file=read_file(home / FILE_NAME),
        machine=machine,
    )


def read_file(path: Path) -> dict[str, object]:
    """What a file of settings says; nothing, where there is none.

    Raises:
        InvalidConfig: It can't be read, is too large, or is not TOML.
    """
    import tomllib  # noqa: PLC0415 - most invocations have no file

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidConfig(where=str(path), why=f"it can't be read ({error.strerror})") from None
    if len(data) > MAX_FILE:
        raise InvalidConfig(where=str(path), why=f"it is larger than {MAX_FILE} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfig(where=str(path), why=f"it is not TOML ({error})") from None


def _check_names(given: Mapping[str, object], known: list[str], *, where: str) -> None:
    for name in given:
        if name in known:
            continue
        import difflib  # noqa: PLC0415 - only for a mistake

        if name == "home":
            why = f"the home can't be set in a file that it holds; set {ENV_PREFIX}HOME"
            raise InvalidConfig(where=where, why=why)
        close = difflib.get_close_matches(name[:100], known, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise InvalidConfig(where=where, why=f"there is no setting {name[:100]!r}{meant}")


def _from_text(setting: Setting, text: str) -> object:
    """An environment variable's value, a list taken apart."""
    if _bare(setting.kind) is bool:
        return _BOOLEANS.get(text.strip().lower(), text)
    if not setting.many:
        return text
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise InvalidConfig(where=setting.env, why=f"it is not JSON ({error})") from None
    return [item.strip() for item in text.split(",") if item.strip()]


def _convert(
    setting: Setting, plain: object, where: str, user_home: Path, base: Path | None
) -> object:
    if setting.name == "ice_servers" and isinstance(plain, (list, tuple)):
        plain = [{"urls": [item]} if isinstance(item, str) else item for item in plain]
    given = plain
    if setting.name in _BYTES and isinstance(plain, str):
        plain = _bytes(plain, where)
    if isinstance(plain, Path):
        plain = str(plain)

    def hook(_kind: type, value: object) -> object:
        if isinstance(value, str) and value:
            found = _path(value, user_home)
            return found if base is None else base / found
        raise ValueError(f"Expected a path, got {value!r}")

    try:
        value = msgspec.convert(plain, setting.kind, strict=isinstance(plain, bool), dec_hook=hook)
    except msgspec.ValidationError as error:
        why = _lower_first(str(error))
        if get_origin(_bare(setting.kind)) is Literal:
            why = f"it is one of {', '.join(get_args(_bare(setting.kind)))}"
        elif isinstance(given, str) and (wanted := _described(setting.kind)):
            why = f"{given[:80]!r} is not {wanted}"
        raise InvalidConfig(where=where, why=why) from None
    if setting.name == "ice_servers":
        _check_ice(value, where)
    return value


def _described(kind: Any) -> str:
    """What the text of a setting must be, in words; empty where that isn't declared."""
    for each in get_args(kind):
        found = each.description if isinstance(each, Meta) else _described(each)
        if found:
            return found
    return ""


def _check_ice(servers: tuple[Ice, ...], where: str) -> None:
    for url in (url for server in servers for url in server.urls):
        if _ICE_URL.fullmatch(url) is None:
            why = f"{url[:80]!r} is no STUN or TURN address, as in stun:host:3478"
            raise InvalidConfig(where=where, why=why)


def _bytes(text: str, where: str) -> int:
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        why = f"{text[:40]!r} is no number of bytes, as in 10MB or 500k"
        raise InvalidConfig(where=where, why=why)
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _path(value: object, user_home: Path) -> Path:
    text = str(value)
    if text == "~" or text.startswith("~/"):
        return user_home / text[2:]
    return Path(text)


def _device_name(host_name: str) -> str:
    """A host name as a device's name: what isn't allowed in one becomes ``-``."""
    name = re.sub(r"[^\w.-]", "-", host_name.partition(".")[0])[:64].lstrip(".-")
    return name or "device"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
