"""How much of a new version is in the old one already: ``python -m bench.sharing``.

Content moves in blocks of 1 MiB, and a block that the other side has doesn't move. Here real
files are made, and made again, as people do: models trained on, trained again from another seed,
or trained longer; labels saved again, corrected, or with further frames. Then the blocks of the
new file are counted whose like is anywhere in the old one.

Checkpoints are of ``sleap-nn`` where it is installed, else only of ``tiny``; labels are saved
by sleap-io with their images inside.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from bench.keeping import beginning, keep
from bench.transfer import scratch
from bench.wire import MB
from sleap_rtc.demo.configs import write_configs
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.engines.base import TrainPlan
from sleap_rtc.engines.configs import dump_config
from sleap_rtc.engines.registry import available, engine
from sleap_rtc.engines.sleap_nn import results as sleap_nn
from sleap_rtc.engines.tiny import checkpoint as tiny
from sleap_rtc.media.readers import readers_closed
from sleap_rtc.media.synthetic import NODES, SyntheticSpec, make_dataset

Say = Callable[[str], None]

FILTERS: Final = {"tiny": None, "sleap-nn": 24}
"""Filters of the first layer, where the demo's own would make a checkpoint of one block."""
_CARRIED: Final = "carried"
"""Where sleap-nn's engine keeps what an attempt was given to go on from."""
STEPS: Final = 5
"""Of each epoch: that weights move is enough."""
_SMALLER: Final = 64 * 1024
"""Bytes of blocks that are counted beside, to see whether smaller ones would share more."""


def shared(old: Path, new: Path, *, block: int = BLOCK) -> float:
    """The share of a new file's bytes whose blocks are in an old one, anywhere.

    Args:
        old: A file.
        new: Another.
        block: Bytes of a block.
    """
    known = {digest for digest, _ in _blocks(old, block)}
    total = same = 0
    for digest, size in _blocks(new, block):
        total += size
        same += size if digest in known else 0
    return same / total if total else 1.0


def _blocks(path: Path, block: int) -> Iterator[tuple[bytes, int]]:
    with path.open("rb", buffering=0) as file:
        while data := file.read(block):
            yield blake3(data).digest(), len(data)


def measure(folder: Path, *, frames: int, epochs: int, say: Say) -> dict[str, Any]:
    """Make files, make them again, and compare.

    Args:
        folder: Empty; everything is made in it.
        frames: Labelled frames.
        epochs: Of a first training.
        say: Shows a line.

    Returns:
        For each pair: the bytes of the new file, and how much of it the old one has.
    """
    found: dict[str, Any] = {}

    def compare(name: str, old: Path, new: Path) -> None:
        found[name] = {
            "bytes": new.stat().st_size,
            "shared": shared(old, new),
            "shared_in_smaller": shared(old, new, block=_SMALLER),
        }
        say(f"  {name}: {found[name]['shared']:.0%} of {found[name]['bytes'] / MB:.1f} MB")

    _saved_again(folder, frames, compare)
    labels = make_dataset(folder / "small").package
    for name in sorted(available()):
        say(f"training by {name}")
        asyncio.run(_trained_again(folder / name, name, labels, epochs, compare))
    return found


def _saved_again(folder: Path, frames: int, compare: Callable[[str, Path, Path], None]) -> None:
    """Labels with images, saved again in the ways that people do."""
    import sleap_io as sio  # noqa: PLC0415 - takes its time

    # The ones with a tenth more frames begin with the same.
    spec = SyntheticSpec(size=(512, 512), labelled=frames, frames=1)
    made = make_dataset(folder / "labels", spec)
    first = made.package

    def again(name: str, change: Callable[[Any], None]) -> Path:
        path = folder / f"{name}.pkg.slp"
        with readers_closed():
            labels = sio.load_slp(str(first))
            change(labels)
            labels.save(str(path), embed="user", verbose=False)
            for video in labels.videos:
                video.close()
        return path

    def correct(labels: Any) -> None:
        for frame in labels.labeled_frames[:: max(1, frames // 10)]:
            frame.instances[0].points["xy"] += 1.5

    def drop(labels: Any) -> None:
        del labels.labeled_frames[frames // 2]

    compare("labels saved again, unchanged", first, again("same", lambda _: None))
    compare("labels, one frame in ten corrected", first, again("corrected", correct))
    shorter = again("shorter", drop)
    compare("labels, a frame in the middle removed", first, shorter)
    compare("labels, a frame put in the middle", shorter, first)
    appended = folder / "appended"
    grown = SyntheticSpec(size=(512, 512), labelled=frames + frames // 10, frames=1)
    compare("labels, a tenth more frames", first, make_dataset(appended, grown).package)


async def _trained_again(
    folder: Path,
    name: str,
    labels: Path,
    epochs: int,
    compare: Callable[[str, Path, Path], None],
) -> None:
    """Models, trained again in the ways that people do."""
    trainer = engine(name)
    config, _ = write_configs(folder / "configs", name, NODES)
    text = config.read_text("utf-8")

    async def train(run: str, *, seed: int, last: int, resume: Path | None = None) -> Path:
        plan = TrainPlan(
            labels=labels,
            config=_changed(text, seed=seed, epochs=last, filters=FILTERS[name]),
            model_type="centroid",
            directory=folder / run,
            run_name=run,
            resume_from=resume,
            device="cpu",
        )
        training = await trainer.start_training(plan)
        try:
            async for _ in training.events():
                pass
            outcome = await training.outcome()
        except BaseException:
            await training.cancel(grace_s=0)
            raise
        if outcome.kind != "succeeded":
            raise RuntimeError(f"{name} couldn't train: {outcome.reason}")
        return plan.directory

    first = await train("first", seed=1, last=epochs)
    same = await train("same", seed=1, last=epochs)
    other = await train("other", seed=2, last=epochs)
    longer = await train("longer", seed=1, last=2 * epochs, resume=first)
    for what, directory in (
        ("trained again, same seed", same),
        ("trained again, another seed", other),
        (f"trained {epochs} epochs further", longer),
    ):
        for file, old in _weights(first).items():
            compare(f"{name}: {file}, {what}", old, _weights(directory)[file])
    shutil.rmtree(folder)


def _weights(directory: Path) -> dict[str, Path]:
    """The checkpoints that a run wrote, by name: not those that it was given to go on from."""
    names = (tiny.BEST, tiny.LAST, sleap_nn.BEST, sleap_nn.LAST)
    found = (path for name in names for path in sorted(directory.rglob(name)))
    return {path.name: path for path in found if _CARRIED not in path.parts}


def _changed(text: str, *, seed: int, epochs: int, filters: int | None) -> str:
    """A configuration with another seed, length and size."""
    import yaml  # noqa: PLC0415 - takes its time

    config = yaml.safe_load(text)
    config["trainer_config"] |= {
        "seed": seed,
        "max_epochs": epochs,
        "train_steps_per_epoch": STEPS,
    }
    if filters is not None:
        config["model_config"]["backbone_config"]["unet"]["filters"] = filters
    return dump_config(config)


def show(measured: dict[str, Any]) -> str:
    """What was measured, as a table for people."""
    lines = [
        "| new version | MB | in the old one, 1 MiB blocks | 64 KiB blocks |",
        "|---|---|---|---|",
    ]
    for name, each in measured.items():
        lines.append(
            f"| {name} | {each['bytes'] / MB:.1f} | {each['shared']:.0%} "
            f"| {each['shared_in_smaller']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Make, compare, print a table, and keep it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.sharing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frames", type=int, default=200, help="labelled frames")
    parser.add_argument("--epochs", type=int, default=3, help="of a first training")
    parser.add_argument("--dir", type=Path, help="where files are made (default: temporary)")
    given = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    measured = beginning()
    with scratch(given.dir) as folder:
        found = measure(folder, frames=given.frames, epochs=given.epochs, say=say)
    measured["sharing"] = found
    path = keep(measured)
    print(show(found))
    say(f"\nkept in {path}")


if __name__ == "__main__":
    main()
