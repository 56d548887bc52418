"""What one invocation of the command line carries: its output, its settings, its logs."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from sleap_rtc.cli.output import Output

if TYPE_CHECKING:
    from datetime import datetime

    from sleap_rtc.client.api import AsyncClient
    from sleap_rtc.config import Settings
    from sleap_rtc.errors import SleapRtcError
    from sleap_rtc.library.registry import Registry

T = TypeVar("T")
Program = Literal["client", "worker", "server"]


class App:
    """One invocation.

    Args:
        out: Where its words go.

    Attributes:
        flags: Settings that were given as flags, by name.
        debug: Whether everything is logged, and a bug shows its traceback.
        goes_on: What the person is told when Ctrl-C ends the command now: what goes on, and what
            to type.
        logs: Where this program's logs are; None before they are set up, or if they can't be kept.
    """

    def __init__(self, out: Output | None = None) -> None:
        self.out = out or Output()
        self.flags: dict[str, object] = {}
        self.debug = False
        self.goes_on = "Nothing was changed."
        self.logs: str | None = None
        self._client: AsyncClient | None = None
        self._library: Registry | None = None
        self._own: Settings | None = None

    def settings(self, program: Program = "client", **flags: object) -> Settings:
        """The settings that hold for this invocation; logging is set up by them.

        Args:
            program: Names the log.
            flags: The command's own settings, by name; None is not given.

        Raises:
            InvalidConfig: One is wrong.
        """
        from sleap_rtc.config import load  # noqa: PLC0415 - --help stays quick

        given = self.flags | {name: value for name, value in flags.items() if value is not None}
        settings = load(given)
        if "home" in given:
            # Engines and runners ask the environment, and must find the same home.
            os.environ["SLEAP_RTC_HOME"] = str(settings.home.absolute())
        self._set_up_logs(settings, program)
        return settings

    def library(self) -> Registry:
        """The library of this machine; commands that need no more than it start sooner by this."""
        if self._library is None:
            from sleap_rtc.cli.progress import Progress  # noqa: PLC0415 - --help stays quick
            from sleap_rtc.library.migration import open_registry  # noqa: PLC0415

            self._library, taken_over = open_registry(
                self._settings().home / "models",
                told=Progress(self.out, "going through the library"),
            )
            if taken_over:
                from sleap_rtc.cli.taken_over import tell_taken_over  # noqa: PLC0415 - once

                tell_taken_over(self.out, taken_over)
        return self._library

    def client(self) -> AsyncClient:
        """The API, with this invocation's settings."""
        if self._client is None:
            from sleap_rtc.client.api import AsyncClient  # noqa: PLC0415 - --help stays quick

            self._client = AsyncClient(self._settings(), library=self.library())
        return self._client

    def _settings(self) -> Settings:
        """Those of the invocation itself, read once: each reading sets up the logs anew."""
        if self._own is None:
            self._own = self.settings()
        return self._own

    @property
    def offline(self) -> bool:
        """Whether nobody is to be asked."""
        return self._settings().offline

    def tell_kept(self, as_of: datetime, what: str) -> None:
        """Say that what is shown was so at some time, since nobody can be asked now."""
        self.out.warn(
            f"Offline: {what} as of {as_of.astimezone():%Y-%m-%d %H:%M}; that may be old."
        )

    def close(self) -> None:
        """Close what was opened."""
        self.out.live.clear()
        if self._library is not None:
            try:
                self._library.close()
            except KeyboardInterrupt:
                self.out.say("Interrupted: what was changed is kept, manifest.json isn't new yet.")
            recovered = self._library.recovered
            if recovered is not None:
                self.out.warn(
                    "The library's index was damaged and is built anew from the records of "
                    f"{recovered.models:,} models; the damaged one is kept as {recovered.aside}."
                )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work to its end."""
        from sleap_rtc.client.loop import run  # noqa: PLC0415 - half of what --help would import

        return run(work)

    def fail(self, error: SleapRtcError) -> NoReturn:
        """End with an error whose document was shown already."""
        import click  # noqa: PLC0415 - --help stays quick

        self.out.failure(error.message, error.hint_text)
        raise click.exceptions.Exit(error.exit_code)

    def _set_up_logs(self, settings: Settings, program: Program) -> None:
        from sleap_rtc.observe.logs import set_up_logs  # noqa: PLC0415 - --help stays quick

        level = "debug" if self.debug else settings.log_level
        # A command says itself what happens; a program in the background says it in its log.
        asked = self.debug or "log_level" in self.flags or program != "client"
        folder = (settings.worker_dir if program == "worker" else settings.home) / "logs"
        for directory in (folder, None):
            try:
                set_up_logs(
                    level=level,
                    style=settings.log_format,
                    directory=directory,
                    program=program,
                    stderr_level=level if asked else "error",
                    stream=self.out.log(),
                )
            except OSError:
                continue  # no room, or no permission: then there is no file
            self.logs = None if directory is None else str(directory / f"{program}.log")
            return
