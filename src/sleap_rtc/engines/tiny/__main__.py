"""``python -m sleap_rtc.engines.tiny train|track …``: the program that the worker starts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sleap_rtc.errors import NotFound, NotPermitted, SleapRtcError


def main(arguments: list[str]) -> int:
    """Train or track; 0 when it is done, 2 when something is wrong with what was given."""
    parser = argparse.ArgumentParser(prog="python -m sleap_rtc.engines.tiny")
    verbs = parser.add_subparsers(dest="verb", required=True)
    train = verbs.add_parser("train")
    train.add_argument("--config", type=Path, required=True)
    train.add_argument("--labels", type=Path, required=True)
    train.add_argument("--val-labels", type=Path)
    train.add_argument("--directory", type=Path, required=True)
    train.add_argument("--resume-from", type=Path)
    track = verbs.add_parser("track")
    track.add_argument("--model", type=Path, action="append", required=True)
    track.add_argument("--video", type=Path, required=True)
    track.add_argument("--output", type=Path, required=True)
    track.add_argument("--frames", type=int, nargs=2)
    track.add_argument("--linked", action="store_true")
    track.add_argument("--provenance", type=json.loads, default={})
    given = parser.parse_args(arguments)
    # After the arguments: numpy and sleap-io take a second to load.
    from sleap_rtc.engines.tiny import words  # noqa: PLC0415

    try:
        _train(given) if given.verb == "train" else _track(given)
    except SleapRtcError as error:
        words.tell("error", code=error.code, message=error.message, hint=error.hint_text)
        return 2
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        kind = NotPermitted if isinstance(error, PermissionError) else NotFound
        message = f"{error.filename}: {error.strerror}."
        words.tell("error", code=kind.code, message=message, hint="")
        return 2
    return 0


def _train(given: argparse.Namespace) -> None:
    from sleap_rtc.engines.tiny import settings, words  # noqa: PLC0415
    from sleap_rtc.engines.tiny.train import Trainer  # noqa: PLC0415

    text = given.config.read_text(encoding="utf-8")
    trainer = Trainer(
        settings.read(text, where="the configuration"),
        given.labels,
        given.directory,
        val_labels=given.val_labels,
        resume_from=given.resume_from,
    )
    trainer.run(words.Ears())


def _track(given: argparse.Namespace) -> None:
    from sleap_rtc.engines.tiny.track import track  # noqa: PLC0415

    track(
        given.model,
        given.video,
        given.output,
        frames=None if given.frames is None else (given.frames[0], given.frames[1]),
        linked=given.linked,
        provenance={str(key): str(value) for key, value in given.provenance.items()},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
