from __future__ import annotations

import asyncio
import json

import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.engines.base import Began, CheckpointWritten, EpochDone, Stepped
from sleap_rtc.engines.sleap_nn.progress import Channel, Reading, parse


def _reading() -> Reading:
    return Reading(planned=3, batches=2, rate=0.01)


def test_the_mean_of_the_batches_is_the_training_loss() -> None:
    reading = _reading()
    said = [
        {"event": "train_begin"},
        {"event": "epoch_begin", "epoch": 0},
        {"event": "batch_start", "batch": 0},
        {"event": "batch_end", "epoch": 0, "batch": 0, "logs": {"loss": 4.0}},
        {"event": "batch_end", "epoch": 0, "batch": 1, "logs": {"loss": 2.0}},
        {"event": "epoch_end", "epoch": 0, "logs": {"train/loss": 99.0, "val/loss": 1.5}},
    ]
    events = [event for message in said for event in reading.feed(message)]
    assert events == [
        Began(epochs=3, first_epoch=0, batches=2),
        Stepped(done=1, epoch=0, total=2, loss=4.0),
        Stepped(done=2, epoch=0, total=2, loss=2.0),
        EpochDone(epoch=0, train_loss=3.0, val_loss=1.5, learning_rate=0.01),
    ]
    assert reading.train_losses == {0: 3.0}
    assert reading.epochs is None, "the checkpoint isn't on the disk yet"
    assert reading.feed({"event": "epoch_begin", "epoch": 1}) == [CheckpointWritten(epochs=1)]
    assert reading.epochs == 1


def test_the_last_checkpoint_is_there_at_the_end() -> None:
    reading = _reading()
    reading.feed({"event": "epoch_begin", "epoch": 2})
    reading.feed({"event": "epoch_end", "epoch": 2, "logs": {}})
    assert reading.feed({"event": "train_end"}) == [CheckpointWritten(epochs=3)]
    assert reading.finished
    assert reading.feed({"event": "train_end"}) == []


def test_the_learning_rate_is_the_last_that_was_told() -> None:
    reading = _reading()
    reading.feed({"event": "epoch_begin", "epoch": 0})
    reading.feed({"event": "epoch_end", "epoch": 0, "logs": {}})
    (_,) = reading.feed({"event": "epoch_begin", "epoch": 1})
    (done,) = reading.feed({"event": "epoch_end", "epoch": 1, "logs": {"train/lr": 0.005}})
    assert done == EpochDone(epoch=1, learning_rate=0.005)
    later = _reading()
    (began,) = later.feed({"event": "epoch_begin", "epoch": 4})
    assert began == Began(epochs=3, first_epoch=4, batches=2)
    assert later.epochs == 4
    assert later.feed({"event": "epoch_end", "epoch": 4}) == [EpochDone(epoch=4)]


def test_a_loss_that_is_no_number_is_unknown() -> None:
    reading = _reading()
    message = parse(b'{"event": "batch_end", "epoch": 0, "batch": 0, "logs": {"loss": NaN}}')
    assert reading.feed(message) == [Stepped(done=1, epoch=0, total=2)]
    message = parse(b'{"event": "epoch_end", "epoch": 0, "logs": {"val/loss": Infinity}}')
    assert reading.feed(message) == [EpochDone(epoch=0, learning_rate=0.01)]


@given(
    st.dictionaries(
        st.sampled_from(["event", "epoch", "batch", "logs"]),
        st.sampled_from(["epoch_begin", "batch_end", "epoch_end", "train_end"])
        | st.none()
        | st.integers()
        | st.floats()
        | st.lists(st.integers())
        | st.dictionaries(st.sampled_from(["loss", "val/loss"]), st.floats() | st.text()),
    )
    | st.binary().map(parse)
)
def test_whatever_it_says_breaks_nothing(message: dict[str, object]) -> None:
    _reading().feed(message)


async def test_messages_come_and_commands_go_over_the_loopback() -> None:
    channel = Channel()
    context = zmq.asyncio.Context()
    publish, subscribe = context.socket(zmq.PUB), context.socket(zmq.SUB)
    publish.connect(f"tcp://127.0.0.1:{channel.publish_port}")
    subscribe.subscribe("")
    subscribe.connect(f"tcp://127.0.0.1:{channel.controller_port}")
    heard: asyncio.Queue[object] = asyncio.Queue()
    channel.listen(heard.put_nowait)
    try:
        async with asyncio.timeout(60):
            while heard.empty():  # what is said before both are connected is lost
                await publish.send(json.dumps({"event": "train_begin"}).encode())
                await asyncio.sleep(0.01)
            while not await subscribe.poll(10):
                await channel.stop_training()
            assert json.loads(await subscribe.recv()) == {"command": "stop"}
            await publish.send(b"not JSON")
            await publish.send(b'{"event": "train_end"}')
            await channel.drain()
    finally:
        publish.close(linger=0)
        subscribe.close(linger=0)
        context.term()
    messages = [heard.get_nowait() for _ in range(heard.qsize())]
    assert messages[0] == {"event": "train_begin"}
    assert messages[-2:] == [{}, {"event": "train_end"}]


def test_a_channel_needs_no_loop_to_be_closed() -> None:
    async def both() -> None:
        channel = Channel()
        await channel.close()

    asyncio.run(both())
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
