"""Whose right it is to speak with S3: a role of the machine where there is one, else keys.

Asked in this order, the first that has something decides:

1. ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY`` (and ``AWS_SESSION_TOKEN``)
2. a role by a token file: ``AWS_ROLE_ARN``, ``AWS_WEB_IDENTITY_TOKEN_FILE`` (a pod of Kubernetes)
3. a role by a service of the container: ``AWS_CONTAINER_CREDENTIALS_FULL_URI`` or
   ``…_RELATIVE_URI`` (ECS, EKS pod identity)
4. the file ``~/.aws/credentials``, profile ``AWS_PROFILE`` or ``default``
5. the role of the machine, by its metadata service (EC2), unless ``AWS_EC2_METADATA_DISABLED``

These are the names that every other tool of S3 uses, so nothing is set up twice. A
role's credentials end after some hours; they are renewed five minutes before. None
of it is ever sent to a client, or logged.
"""

from __future__ import annotations

import configparser
import ipaddress
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from sleap_rtc.errors import InvalidConfig, StorageRefused, StorageUnreachable
from sleap_rtc.storage import xml
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.signing import Credentials
from sleap_rtc.storage.wire import Answer, Connections

RENEW: Final = timedelta(minutes=5)
_METADATA: Final = "http://169.254.169.254"
_METADATA_SECONDS: Final = 2.0
_CONTAINER: Final = "http://169.254.170.2"
_CONTAINER_HOSTS: Final = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_MAX_FILE: Final = 64 * 1024


class CredentialChain:
    """Gives credentials, and new ones before the old ones end. For many threads.

    Args:
        environment: The process's.
        home: The user's home directory.
        clock: The time in UTC.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        home: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._environment = environment
        self._home = home
        self._clock = clock
        self._lock = threading.Lock()
        self._current: Credentials | None = None

    def __call__(self) -> Credentials:
        """The credentials to sign with now.

        Raises:
            InvalidConfig: There are none, or a file of them can't be read.
            StorageUnreachable: The service that gives them doesn't answer.
            StorageRefused: It gives none.
        """
        with self._lock:
            current = self._current
            if current is None or self._is_ending(current):
                current = self._current = self._found()
            return current

    def _is_ending(self, credentials: Credentials) -> bool:
        return credentials.expires is not None and credentials.expires - self._clock() < RENEW

    def _found(self) -> Credentials:
        get = self._environment.get
        key, secret = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")
        if key and secret:
            token = get("AWS_SESSION_TOKEN", "")
            return Credentials(access_key=key, secret_key=secret, token=token)
        if (role := get("AWS_ROLE_ARN")) and (file := get("AWS_WEB_IDENTITY_TOKEN_FILE")):
            return self._by_web_identity(role, Path(file))
        if uri := get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            return self._by_container(uri)
        if uri := get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
            return self._by_container(_CONTAINER + uri)
        found = self._by_file()
        if found is not None:
            return found
        if get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
            return self._by_metadata()
        raise _none()

    def _by_web_identity(self, role: str, file: Path) -> Credentials:
        region = self._environment.get("AWS_REGION", "us-east-1")
        usual = f"https://sts.{region}.amazonaws.com"
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": self._environment.get("AWS_ROLE_SESSION_NAME", "sleap-rtc"),
            "WebIdentityToken": _text(file).strip(),
        }
        answer = self._ask(
            "POST",
            self._environment.get("AWS_ENDPOINT_URL_STS", usual) + "/",
            {"content-type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
        result = xml.parse(answer.body, "the token service")
        for name in ("AssumeRoleWithWebIdentityResult", "Credentials"):
            result = next(iter(xml.nodes(result, name)), result)
        return Credentials(
            access_key=xml.text(result, "AccessKeyId"),
            secret_key=xml.text(result, "SecretAccessKey"),
            token=xml.text(result, "SessionToken"),
            expires=_time(xml.text(result, "Expiration")),
        )

    def _by_container(self, uri: str) -> Credentials:
        host = urlsplit(uri).hostname or ""
        if urlsplit(uri).scheme != "https" and not _is_near(host):
            why = f"{host[:80]} is neither https nor this machine's container service"
            raise InvalidConfig(where="AWS_CONTAINER_CREDENTIALS_FULL_URI", why=why)
        token = self._environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        if file := self._environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            token = _text(Path(file)).strip()
        return _of_json(self._ask("GET", uri, {"authorization": token} if token else {}))

    def _by_metadata(self) -> Credentials:
        base = self._environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _METADATA).rstrip("/")
        try:
            seconds = {"x-aws-ec2-metadata-token-ttl-seconds": "300"}
            token = self._ask("PUT", f"{base}/latest/api/token", seconds, near=True)
            headers = {"x-aws-ec2-metadata-token": token.body.decode("ascii", "replace")}
            path = f"{base}/latest/meta-data/iam/security-credentials/"
            lines = self._ask("GET", path, headers, near=True).body.decode("utf-8", "replace")
            role = quote(lines.partition("\n")[0].strip())
            return _of_json(self._ask("GET", path + role, headers, near=True))
        except StorageUnreachable:  # this is no machine of that kind
            raise _none() from None

    def _by_file(self) -> Credentials | None:
        given = self._environment.get("AWS_SHARED_CREDENTIALS_FILE")
        path = Path(given) if given else self._home / ".aws" / "credentials"
        if not path.exists():
            return None
        profile = self._environment.get("AWS_PROFILE", "default")
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(_text(path))
            found = dict(parser[profile])
        except KeyError:
            return None
        except configparser.Error:  # its message would show lines of the file
            raise InvalidConfig(where=str(path), why="it is no file of credentials") from None
        key, secret = found.get("aws_access_key_id"), found.get("aws_secret_access_key")
        if not key or not secret:
            return None
        token = found.get("aws_session_token", "")
        return Credentials(access_key=key, secret_key=secret, token=token)

    def _ask(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        data: bytes = b"",
        *,
        near: bool = False,
    ) -> Answer:
        request = SignedRequest(method=method, url=url, headers=headers, expires=self._clock())
        connections = Connections(connect=_METADATA_SECONDS) if near else Connections()
        try:
            answer = connections.send(request, data, limit=_MAX_FILE)
        finally:
            connections.close()
        if not answer.ok:
            host = urlsplit(url).netloc
            said = xml.error(answer.body) or f"HTTP {answer.status}"
            raise StorageRefused(store=host, what="give credentials", why=said)
        return answer


def _of_json(answer: Answer) -> Credentials:
    try:
        found: Any = msgspec.json.decode(answer.body)
        return Credentials(
            access_key=str(found["AccessKeyId"]),
            secret_key=str(found["SecretAccessKey"]),
            token=str(found["Token"]),
            expires=_time(str(found["Expiration"])),
        )
    except (msgspec.DecodeError, KeyError, TypeError):
        why = "its answer holds none"
        raise StorageRefused(store="the role's service", what="give credentials", why=why) from None


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        why = "they end at a time that can't be read"
        raise StorageRefused(store="the role's service", what="give credentials", why=why) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _is_near(host: str) -> bool:
    if host in _CONTAINER_HOSTS or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError as error:
        raise InvalidConfig(where=str(path), why=f"it can't be read ({error.strerror})") from None


def _none() -> InvalidConfig:
    why = "neither AWS_ACCESS_KEY_ID, nor a role, nor ~/.aws/credentials gives any"
    return InvalidConfig(where="credentials for S3", why=why)
