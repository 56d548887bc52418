"""``trust-model``: a yes of this machine's owner, for jobs that others send to its worker."""

from __future__ import annotations

import click

from sleap_rtc.cli.app import App


class Blake3(click.ParamType):  # type: ignore[type-arg] # generic in newer versions alone
    """The hash of a whole file."""

    name = "BLAKE3"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """See that it is one."""
        text = str(value).strip().lower()
        if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
            self.fail(f"{text[:80]!r} is not 64 hex digits.", param, ctx)
        return text


@click.command()
@click.argument("blake3", type=Blake3())
@click.option("--remove", is_flag=True, help="Take the yes back.")
@click.pass_obj
def trust_model(app: App, /, *, blake3: str, remove: bool) -> None:
    """Let a checkpoint that looks odd run on this machine.

    A worker doesn't run a checkpoint that was not trained on it, and that its scan
    doesn't find clean, before the owner of its machine has said yes. The job that was
    refused names the file by its hash, which is what is given here: any other content
    is asked for again. Loading such a file can run whatever its maker wrote into it.

    \b
    sleap-rtc trust-model 5c1d…
    sleap-rtc trust-model 5c1d… --remove
    """  # noqa: D301 - click reads the backspace, which keeps lines as they are
    from sleap_rtc.cli.machine_documents import TrustDocument  # noqa: PLC0415 - --help stays quick
    from sleap_rtc.client.approvals import Approvals  # noqa: PLC0415

    approvals = Approvals(app.settings().home / "trusted")
    before = approvals.has(blake3)
    if remove:
        approvals.withdraw(blake3)
    elif not before:
        approvals.approve(blake3, "said by sleap-rtc trust-model")
    document = TrustDocument(blake3=blake3, trusted=not remove, before=before)
    now = "not run here without a yes" if remove else "run on this machine"
    unchanged = ", as before" if before != remove else ""
    app.out.show(document, lambda: app.out.say(f"{blake3} is {now}{unchanged}."))
