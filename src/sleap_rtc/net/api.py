"""A server's HTTP API, as a device asks it: signed in by itself, errors as they were raised there.

Blocks; threads may share one. Needs the extra ``http``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Self, TypeVar

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.domain.values import Value, decode, encode
from sleap_rtc.errors import (
    DataError,
    NotSignedIn,
    ProtocolError,
    ServerUnreachable,
    SleapRtcError,
    from_wire,
)
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.breaker import Breakers
from sleap_rtc.net.exchange import Response
from sleap_rtc.net.http import HttpClient
from sleap_rtc.net.urls import UrlRules
from sleap_rtc.protocol.http import (
    CHALLENGE_PATH,
    SIGN_IN_PATH,
    ChallengeTold,
    ErrorTold,
    TokenRequest,
    TokenTold,
)
from sleap_rtc.protocol.signaling import SIGN_IN_CONTEXT, sign_in_payload

EARLY_S: Final = 60.0
"""A token is renewed so many seconds before it ends."""
RESTART_S: Final = 3.0
"""Seconds that a server which fails is left alone: restarting, it is back soon."""
MAX_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of the largest answer; a list of 10,000 parts has 2 MB."""

V = TypeVar("V", bound=Value)


class ServerApi:
    """Asks one server.

    Args:
        server: Where it is.
        device: This device.
        sign: Signs as this device: (context, payload) → 64 bytes.
        name: What the device calls itself.
        program: Name and version of the program.
        offline: Whether nobody is to be asked, for a client of its own.
        client: Whose rules name the server as the user's own; None for one of its own.
        monotonic: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        server: ServerAddress,
        *,
        device: DeviceId,
        sign: Callable[[str, bytes], bytes],
        name: str,
        program: str = "",
        offline: bool = False,
        client: HttpClient | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server
        self._client = client or HttpClient(
            UrlRules(own=frozenset({server})),
            offline=offline,
            breakers=Breakers(open_s=RESTART_S),
        )
        self._device, self._sign = device, sign
        self._name, self._program, self._monotonic = name, program, monotonic
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections; who waits to ask again gives up."""
        self._client.close()

    def ask(
        self,
        path: str,
        answer: type[V],
        request: Value | None = None,
        *,
        timeout: float | None = None,
    ) -> V:
        """Ask for something that needs a sign-in.

        Args:
            path: From ``/``.
            answer: What is to be told.
            request: What is asked; None asks by GET.
            timeout: Seconds to wait for the answer, where it isn't the client's own.

        Raises:
            SleapRtcError: What the server says.
            Offline: Nobody is to be asked.
            HostUnreachable: It can't be asked.
            ProtocolError: It answers something else.
        """
        for again in (True, False):
            token = self._signed_in()
            found = self._send(path, request, token=token, timeout=timeout)
            if found.ok:
                return self._read(found, answer)
            error = self._error(found)
            if not (again and isinstance(error, NotSignedIn)):
                raise error
            with self._lock:
                if self._token == token:
                    self._token = ""
        raise error

    def _signed_in(self) -> str:
        with self._lock:
            if not self._token or self._monotonic() >= self._until:
                told = self._sign_in()
                self._token = told.token
                self._until = self._monotonic() + max(told.expires_in - EARLY_S, 1.0)
            return self._token

    def _sign_in(self) -> TokenTold:
        challenge = self._plain(CHALLENGE_PATH, ChallengeTold, None)
        payload = sign_in_payload(
            nonce=challenge.nonce, server=self.server.dialled, device=self._device
        )
        request = TokenRequest(
            device=self._device,
            nonce=challenge.nonce,
            signature=self._sign(SIGN_IN_CONTEXT, payload).hex(),
            name=self._name,
            program=self._program,
        )
        return self._plain(SIGN_IN_PATH, TokenTold, request)

    def _plain(self, path: str, answer: type[V], request: Value | None) -> V:
        found = self._send(path, request, token="", post=True)
        if not found.ok:
            raise self._error(found)
        return self._read(found, answer)

    def _send(
        self,
        path: str,
        request: Value | None,
        *,
        token: str,
        post: bool = False,
        timeout: float | None = None,
    ) -> Response:
        headers = {"content-type": "application/json"} if request is not None else {}
        if token:
            headers["authorization"] = f"Bearer {token}"
        return self._client.request(
            "POST" if post or request is not None else "GET",
            self.server.url + path,
            headers=headers,
            content=b"" if request is None else encode(request),
            limit=MAX_ANSWER,
            timeout=timeout,
            # What is asked here may be asked twice: the server says the same again. Only a
            # signed challenge is good once.
            repeatable=path != SIGN_IN_PATH,
        )

    def _read(self, found: Response, answer: type[V]) -> V:
        try:
            return decode(answer, found.body, what="the answer", limit=MAX_ANSWER)
        except DataError as error:
            raise ProtocolError(peer=self.server.url, why=error.message) from None

    def _error(self, found: Response) -> SleapRtcError:
        try:
            told = decode(ErrorTold, found.body, what="the answer").error
        except DataError:
            why = f"it answers, but not as a sleap-rtc server (HTTP {found.status})"
            return ServerUnreachable(url=self.server.url, why=why)
        return from_wire(told.code, {}, message=told.message, hint=told.hint)
