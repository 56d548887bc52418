"""HTTP for everything that asks another machine: one way to wait, to try again and to give up.

::

    request ─► URL checked ─► cache ─fresh─► answer
                                │
                   offline ◄────┤           stale answer, else error
                                ▼
               breaker open ◄── ask ──► sent ──► answer (kept where it may be)
                                ▲         │ 5xx, 429, broken off, too slow
                                └─ pause ─┘ up to 4 times; then a stale answer, else error

Built on ``httpcore2``, the transport of ``httpx2``: HTTP/2 where the host speaks
it, connections kept open, the system's certificates. Needs the extra ``http``.

A client blocks, and threads may share it; asyncio calls it in a thread.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Self

import msgspec
from loguru import logger

from sleap_rtc.errors import HostUnreachable, Offline, SleapRtcError, UnsafeUrl
from sleap_rtc.net.breaker import Asked, Breakers, Failed, Succeeded, Wait
from sleap_rtc.net.dialing import Pools
from sleap_rtc.net.exchange import Request, Response, exchange
from sleap_rtc.net.httpcache import HttpCache, Kept, freshness
from sleap_rtc.net.retrying import (
    AGAIN,
    HOST_FAILED,
    NOT_DONE,
    REPEATABLE,
    Retry,
    parse_retry_after,
    pause,
)
from sleap_rtc.net.urls import Target, UrlRules, check_url, follow

TIMEOUT: Final = 7.0
"""Seconds for a connection, and for each answer or piece of one to come."""
MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of the largest body that is read, unless a request says otherwise."""
MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AS_GET: Final = frozenset({301, 302, 303})
_SECRETS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


class HttpClient:
    """Asks other machines by HTTP.

    Args:
        rules: Which URLs may be asked.
        retry: How often a request is sent, and how patiently.
        timeout: Seconds for a connection, and for each answer or piece of one to come.
        offline: Whether nobody is to be asked: what is kept is used, the rest fails at once.
        cache: Where answers are kept; None for nowhere.
        tls: Whom to trust; None for whom the system trusts.
        breakers: To be shared by several clients; None for its own.
        now: The clock, UTC.
        monotonic: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        rules: UrlRules | None = None,
        *,
        retry: Retry | None = None,
        timeout: float = TIMEOUT,
        offline: bool = False,
        cache: HttpCache | None = None,
        tls: ssl.SSLContext | None = None,
        breakers: Breakers | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules or UrlRules()
        self._retry = retry or Retry()
        self._timeout, self._offline, self._cache = timeout, offline, cache
        self._breakers = breakers or Breakers()
        self._pools = Pools(self._rules.own, tls=tls)
        self._now, self._monotonic = now, monotonic
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection; who waits to try again gives up."""
        self._closing.set()
        self._pools.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        limit: int = MAX_BODY,
        timeout: float | None = None,
        cached: bool = False,
        repeatable: bool | None = None,
    ) -> Response:
        """Ask, and ask again if that may help.

        Args:
            method: ``GET`` and so on.
            url: Whole, from whatever source.
            headers: To be sent; credentials among them are sent to no other host.
            content: The request's body.
            limit: Bytes that the answer may have.
            timeout: Seconds, in place of the client's own.
            cached: Whether an answer to a GET may come from the cache, and be kept there.
            repeatable: Whether it may be sent again when it is unknown whether it came through;
                None goes by the method.

        Raises:
            UnsafeUrl: It, or where it redirects to, may not be asked.
            Offline: Nobody is to be asked, and nothing is kept.
            HostUnreachable: The host doesn't answer, or failed too often lately.
            DataError: The answer is larger than the limit.
        """
        target = check_url(url, self._rules)
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        secret = sent.get("authorization", "")
        cache = self._cache if cached and method == "GET" else None
        kept = cache.get(target.url, secret=secret) if cache else None
        if kept is not None and kept.is_fresh(self._now()):
            return _from_kept(kept, stale=False)
        request = Request(
            method=method,
            target=target,
            headers=sent | (kept.conditions if kept else {}),
            content=content,
            limit=limit,
            timeout=self._timeout if timeout is None else timeout,
        )
        again = method in REPEATABLE if repeatable is None else repeatable
        try:
            answer = self._ask(request, again=again)
        except (Offline, HostUnreachable) as error:
            if kept is None or not kept.is_usable(self._now()):
                raise
            logger.debug("{} What was kept is used.", error.message)
            return _from_kept(kept, stale=True)
        if kept is not None and answer.status in AGAIN and kept.is_usable(self._now()):
            return _from_kept(kept, stale=True)
        return answer if cache is None else self._keep(cache, target, secret, answer, kept)

    def _keep(
        self, cache: HttpCache, target: Target, secret: str, answer: Response, kept: Kept | None
    ) -> Response:
        if answer.status == 304 and kept is not None:
            answer = msgspec.structs.replace(
                answer, status=200, body=kept.body, headers=kept.headers | answer.headers
            )
        elif answer.status != 200:
            if answer.status in (404, 410):
                cache.forget(target.url, secret=secret)
            return answer
        now = self._now()
        until = freshness(answer.headers, now)
        if until is None:
            cache.forget(target.url, secret=secret)
            return answer
        fresh = Kept(
            url=target.shown,
            status=200,
            headers={name: v for name, v in answer.headers.items() if name != "set-cookie"},
            body=answer.body,
            stored=now,
            fresh_until=until,
        )
        cache.put(target.url, fresh, secret=secret)
        return answer

    # ── trying ───────────────────────────────────────────────────────────────

    def _ask(self, request: Request, *, again: bool) -> Response:
        if self._offline:
            raise Offline(url=request.target.shown)
        attempt = 0
        while True:
            attempt += 1
            outcome = self._try(request)
            if isinstance(outcome, Response) and outcome.status not in AGAIN:
                return outcome
            seconds = self._pause(outcome, attempt, again=again)
            if self._breakers.is_open(request.target.address.url, self._monotonic()):
                seconds = None
            if seconds is None or self._closing.wait(seconds):
                if isinstance(outcome, Response):
                    return outcome
                raise outcome
            logger.debug("asked {} again after {:.1f} s", request.target.shown, seconds)

    def _pause(
        self, outcome: Response | HostUnreachable, attempt: int, *, again: bool
    ) -> float | None:
        asked = None
        if isinstance(outcome, Response):
            again = again or outcome.status in NOT_DONE
            asked = parse_retry_after(outcome.headers.get("retry-after", ""), self._now())
        if not again:
            return None
        chance = random.random()  # noqa: S311 - spreads load, guards nothing
        return pause(self._retry, attempt, retry_after=asked, chance=chance)

    def _try(self, request: Request) -> Response | HostUnreachable:
        """Send a request, and go where the answer leads."""
        for _ in range(MAX_REDIRECTS + 1):
            outcome = self._send(request)
            if isinstance(outcome, HostUnreachable) or outcome.status not in _REDIRECTS:
                return outcome
            location = outcome.headers.get("location")
            if location is None:
                return outcome
            request = _redirected(request, outcome.status, location, self._rules)
        why = f"it redirects more than {MAX_REDIRECTS} times"
        raise UnsafeUrl(url=request.target.shown, why=why)

    def _send(self, request: Request) -> Response | HostUnreachable:
        """Send it once, if the host's breaker lets it, and tell the breaker how it went."""
        host = request.target.address.url
        verdict = self._breakers.tell(host, Asked(now=self._monotonic()))
        if isinstance(verdict, Wait):
            seconds = max(verdict.seconds, 1)
            why = f"it failed several times in a row, and is asked again in {seconds:.0f} s"
            raise HostUnreachable(host=host, why=why)
        try:
            answer = exchange(self._pools, request)
        except HostUnreachable as error:
            self._breakers.tell(host, Failed(now=self._monotonic()))
            return error
        except SleapRtcError:
            self._breakers.tell(host, Succeeded(now=self._monotonic()))
            raise
        event = Failed if answer.status in HOST_FAILED else Succeeded
        self._breakers.tell(host, event(now=self._monotonic()))
        return answer


def _redirected(request: Request, status: int, location: str, rules: UrlRules) -> Request:
    found = follow(request.target, location, rules)
    headers, method, content = request.headers, request.method, request.content
    if status in _AS_GET and method not in ("GET", "HEAD"):
        method, content = "GET", b""
        headers = {name: v for name, v in headers.items() if name != "content-type"}
    if found.address != request.target.address:
        if content:
            raise UnsafeUrl(
                url=found.shown, why="what was sent to another host would be sent there"
            )
        headers = {name: v for name, v in headers.items() if name not in _SECRETS}
    return msgspec.structs.replace(
        request, target=found, headers=headers, method=method, content=content
    )


def _from_kept(kept: Kept, *, stale: bool) -> Response:
    return Response(
        status=kept.status, headers=kept.headers, body=kept.body, url=kept.url, stale=stale
    )
