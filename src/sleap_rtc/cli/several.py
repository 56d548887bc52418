"""Commands that take several names: what fails of one doesn't keep the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from sleap_rtc.cli.app import App
from sleap_rtc.cli.documents import ErrorShown, FailedShown
from sleap_rtc.cli.main import of_system
from sleap_rtc.errors import Cancelled, SleapRtcError, UsageError


class Several:
    """Does the same with several things, and remembers what failed.

    Args:
        app: The invocation.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._failed: list[tuple[str, SleapRtcError]] = []
        self._done = 0

    @property
    def failed(self) -> tuple[FailedShown, ...]:
        """What failed, for the command's document."""
        return tuple(
            FailedShown(
                name=name,
                error=ErrorShown(
                    code=error.code,
                    message=error.message,
                    hint=error.hint_text,
                    exit_code=error.exit_code,
                ),
            )
            for name, error in self._failed
        )

    @contextlib.contextmanager
    def one(self, name: str) -> Iterator[None]:
        """Do one; where it fails, the next one is gone on with.

        Args:
            name: As it was typed.

        Raises:
            Cancelled: A person said no: that ends all.
            UsageError: What was typed is wrong for every one.
        """
        try:
            yield
        except (Cancelled, UsageError):
            raise
        except SleapRtcError as error:
            self._failed.append((name, error))
        except OSError as error:
            if error.filename is None:  # nothing that could be told of one thing
                raise
            self._failed.append((name, of_system(error)))
        else:
            self._done += 1

    def check(self) -> None:
        """Before anything is shown: where the only one failed, its error is all there is to say."""
        if len(self._failed) == 1 and not self._done:
            raise self._failed[0][1]

    def end(self) -> None:
        """Last, tell what failed; the process ends with its exit code, or 1 for several."""
        codes = {error.exit_code for _, error in self._failed}
        for _, error in self._failed:
            self._app.out.failure(error.message, error.hint_text)
        if codes:
            raise click.exceptions.Exit(codes.pop() if len(codes) == 1 else 1)
