"""Where credentials come from: each of the usual places, played by a small server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import pytest

from sleap_rtc.errors import InvalidConfig, StorageRefused
from sleap_rtc.storage.credentials import CredentialChain

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JSON = b"""{"AccessKeyId": "role", "SecretAccessKey": "s", "Token": "t",
 "Expiration": "2026-01-01T01:00:00Z"}"""
STS = b"""<R xmlns="https://sts/"><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>web</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2026-01-01T01:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></R>"""


class Service:
    """Answers by path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.asked.append((self.command, self.path, headers, body))
                status, answer = service.answers.get(self.path, (404, b""))
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST = answer  # noqa: N815 - by http.server

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    thread = Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


OFF = {"AWS_EC2_METADATA_DISABLED": "true"}


def test_the_environment_comes_first(tmp_path: Path) -> None:
    given = {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/",
    }
    found = CredentialChain(given, tmp_path)()
    assert (found.access_key, found.secret_key, found.token, found.expires) == ("k", "s", "t", None)


def test_a_token_file_is_changed_for_a_role(tmp_path: Path, service: Service) -> None:
    service.answers["/"] = 200, STS
    (tmp_path / "token").write_text("jwt\n")
    given = {
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/worker",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ENDPOINT_URL_STS": service.url,
    }
    found = CredentialChain(given, tmp_path, clock=lambda: NOW)()
    assert (found.access_key, found.token) == ("web", "t")
    form = parse_qs(service.asked[0][3].decode())
    assert form["WebIdentityToken"] == ["jwt"]
    assert form["RoleArn"] == ["arn:aws:iam::1:role/worker"]
    service.answers["/"] = 403, b"<Error><Code>AccessDenied</Code></Error>"
    with pytest.raises(StorageRefused, match="AccessDenied") as caught:
        CredentialChain(given, tmp_path)()
    assert "jwt" not in str(caught.value)


def test_a_role_of_a_container_is_renewed_before_it_ends(tmp_path: Path, service: Service) -> None:
    service.answers["/creds"] = 200, JSON
    (tmp_path / "token").write_text("pass")
    given = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{service.url}/creds",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
    }
    now = NOW
    chain = CredentialChain(given, tmp_path, clock=lambda: now)
    assert chain().access_key == "role"
    assert chain() is chain()
    assert len(service.asked) == 1
    assert service.asked[0][2]["authorization"] == "pass"
    now = NOW + timedelta(minutes=56)
    chain()
    assert len(service.asked) == 2


@pytest.mark.parametrize("url", ["http://10.0.0.1/creds", "http://evil.invalid/creds"])
def test_a_container_service_far_away_is_not_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidConfig, match="neither https"):
        CredentialChain({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}, tmp_path)()


def test_a_file_of_credentials(tmp_path: Path) -> None:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = s%1\n"
        "[lab]\naws_access_key_id = l\naws_secret_access_key = s\naws_session_token = t\n"
        "[empty]\n"
    )
    assert CredentialChain(OFF, tmp_path)().secret_key == "s%1"
    found = CredentialChain({**OFF, "AWS_PROFILE": "lab"}, tmp_path)()
    assert (found.access_key, found.token) == ("l", "t")
    for profile in ("none", "empty"):
        with pytest.raises(InvalidConfig, match="nor a role"):
            CredentialChain({**OFF, "AWS_PROFILE": profile}, tmp_path)()
    (folder / "credentials").write_text("aws_secret_access_key = hidden\n")
    with pytest.raises(InvalidConfig) as caught:
        CredentialChain(OFF, tmp_path)()
    assert "hidden" not in str(caught.value)


def test_the_role_of_a_machine(tmp_path: Path, service: Service) -> None:
    roles = "/latest/meta-data/iam/security-credentials/"
    service.answers = {
        "/latest/api/token": (200, b"v2"),
        roles: (200, b"worker\nother"),
        f"{roles}worker": (200, JSON),
    }
    given = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}
    assert CredentialChain(given, tmp_path, clock=lambda: NOW)().access_key == "role"
    assert [asked[2].get("x-aws-ec2-metadata-token") for asked in service.asked[1:]] == ["v2"] * 2
    service.answers[f"{roles}worker"] = 200, b'{"Code": "Failed"}'
    with pytest.raises(StorageRefused, match="holds none"):
        CredentialChain(given, tmp_path)()
    service.answers[f"{roles}worker"] = 200, JSON.replace(b"2026-01-01T01", b"soon")
    with pytest.raises(StorageRefused, match="can't be read"):
        CredentialChain(given, tmp_path)()
    nowhere = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}
    with pytest.raises(InvalidConfig, match="nor a role"):
        CredentialChain(nowhere, tmp_path)()


def test_a_token_file_that_isn_t_there(tmp_path: Path) -> None:
    given = {"AWS_ROLE_ARN": "r", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none")}
    with pytest.raises(InvalidConfig, match="can't be read"):
        CredentialChain(given, tmp_path)()
