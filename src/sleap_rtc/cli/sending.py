"""How ``train`` and ``track`` send a job's data: by which way, and how far storing it is."""

from __future__ import annotations

from typing import Final

from sleap_rtc.cli.app import App
from sleap_rtc.cli.screen import BAR, moved
from sleap_rtc.cli.storage_documents import PlanDocument, WayShown
from sleap_rtc.cli.text import bar
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.composing import Composed
from sleap_rtc.client.part_storing import OnProgress
from sleap_rtc.client.routing import Planned, check_wish, plan_for, send_first
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.transfer.choice import Plan, Way
from sleap_rtc.transfer.progress import Progress

GOES_ON: Final = "Nothing was queued. What was stored is kept: the same command goes on from there."

_HOW: Final = {"s3": "by the room's storage", "local": "from a disk that the worker sees too"}
_LINK: Final = (
    "over a direct connection (WebRTC), encrypted end to end; what is there already isn't sent "
    "again"
)


def plan(
    app: App, client: AsyncClient, composed: Composed, worker: str, *, leaves: bool, ask: bool
) -> Planned:
    """By which way the data goes.

    Args:
        app: The invocation.
        client: The API.
        composed: The job.
        worker: The worker's name.
        leaves: Whether this command ends as soon as the job is submitted.
        ask: Whether worker and storage are asked even if it doesn't matter, as for `explain`.

    Raises:
        SleapRtcError: What the user asked for can't be done; for `explain` that is told otherwise.
    """
    app.out.live.update([f"asking {worker} what it has"])
    try:
        planned: Planned = app.run(plan_for(client, composed, worker, leaves=leaves, ask=ask))
    finally:
        app.out.live.clear()
    if not ask:
        check_wish(planned)
    return planned


def words(plan: Plan) -> str:
    """By which way the data goes, and why, in a sentence."""
    first = plan.ways[0]
    return f"{_HOW[first.kind]}: {first.why}" if first.kind in _HOW else _LINK


def explain(app: App, planned: Planned) -> None:
    """Show the plan."""
    document = PlanDocument(
        size=planned.given.size,
        stored=planned.given.stored,
        ways=_shown(planned.plan.ways),
        without=_shown(planned.plan.without),
    )

    def lines() -> None:
        for line in planned.plan.explain().splitlines():
            app.out.data(line)

    app.out.show(document, lines)
    app.out.say("Nothing was sent.")


def send(app: App, client: AsyncClient, planned: Planned, composed: Composed) -> Composed:
    """Store the data, if it goes that way; the job is to be submitted afterwards.

    Raises:
        SleapRtcError: It can't be stored, and was to be. Nothing is queued.
    """
    app.goes_on = GOES_ON
    progress = storing(app)
    try:
        routed = send_first(client, planned, composed, on_progress=progress, say=app.out.warn)
    finally:
        app.out.live.clear()
    if routed.sent or routed.there:
        there = f", {format_bytes(routed.there)} was there already" if routed.there else ""
        app.out.say(f"Stored   {format_bytes(routed.sent)} sent{there}; kept for a day as")
    for place in routed.places:
        app.out.say(f"         {place}")
    return routed.composed


def storing(app: App) -> OnProgress:
    """Shows how far storing is."""

    def on_progress(name: str, progress: Progress) -> None:
        how_far = moved(progress.done, progress.total, progress.rate, progress.eta_s)
        line = f"storing {name.rpartition('/')[2]}"
        app.out.live.update(
            [f"{bar(progress.percent / 100, BAR)}  {line}", f"{'':{BAR}}  {how_far}"],
            plain=f"{line}: {how_far}",
        )

    return on_progress


def _shown(ways: tuple[Way, ...]) -> tuple[WayShown, ...]:
    return tuple(WayShown(way=way.kind, why=way.why) for way in ways)
