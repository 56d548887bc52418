"""Draw predictions over a frame of their video, to a picture one can look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sleap_io as sio

from sleap_rtc.errors import FilesMissing, UsageError
from sleap_rtc.media.compare import load
from sleap_rtc.media.readers import readers_closed


def render_frame(
    predictions: Path,
    output: Path,
    *,
    video: Path | None = None,
    frame: int | None = None,
    scale: float = 2.0,
) -> int:
    """Draw one frame with its instances to a PNG.

    Args:
        predictions: A ``.slp``.
        output: The PNG to write; its folder must be there.
        video: The video, where it isn't where the predictions say.
        frame: Which frame; None takes the one with most instances that is nearest the middle.
        scale: Enlargement, 0.1 to 8.

    Returns:
        The index of the frame drawn.

    Raises:
        UsageError: The frame has no instances, or nothing was predicted at all.
        FilesMissing: Predictions or video are not there.
        InvalidLabels: The predictions can't be read.
    """
    if not 0.1 <= scale <= 8:
        raise UsageError(message=f"A picture can be enlarged 0.1 to 8 times, not {scale}")
    labels = load(predictions)
    frames = {int(lf.frame_idx): lf for lf in labels.labeled_frames if len(lf.instances)}
    if not frames:
        raise UsageError(message=f"{predictions} holds no instances, so there is nothing to draw")
    if frame is None:
        middle = sorted(frames)[len(frames) // 2]
        frame = min(frames, key=lambda index: (-len(frames[index].instances), abs(index - middle)))
    if frame not in frames:
        raise UsageError(message=f"{predictions} holds no instances in frame {frame}")
    source = Path(str(frames[frame].video.filename)) if video is None else video
    if not source.is_file():
        raise FilesMissing(name=source.name, files=str(source))
    with readers_closed():
        image = _image(source, frame)
    sio.render_image(
        list(frames[frame].instances),
        str(output),
        image=image,
        color_by="instance",
        marker_size=3.0,
        scale=scale,
    )
    return frame


def _image(source: Path, frame: int) -> Any:
    video = sio.Video.from_filename(str(source))
    try:
        return video[frame]
    finally:
        video.close()
