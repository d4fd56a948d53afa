"""The request loop on a pipe: each of its invariants."""

import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
from host_kit import PATIENCE_S

from memhpfs.host.loop import SLICE_S, SPARES, PollFirst

Handler = Callable[[bytes], Awaitable[None]]


class Pipe:
    """A pipe whose bytes are requests, and the loop that serves them."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.loop = PollFirst(self.read_fd, self._session)
        self.handler: Handler = self._remember
        self.seen: list[bytes] = []
        self.sessions = 0

    def send(self, requests: bytes) -> None:
        os.write(self.write_fd, requests)

    async def _session(self) -> None:
        self.sessions += 1
        while await self.loop.wait():
            request = os.read(self.read_fd, 1)
            if not request:
                return
            await self.handler(request)

    async def _remember(self, request: bytes) -> None:
        self.seen.append(request)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.read_fd)
    os.close(pipe.write_fd)


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.001)


async def test_takes_requests_in_order(pipe, nursery):
    """One worker takes one request after the other."""
    nursery.start_soon(pipe.loop.run)
    pipe.send(b"abc")
    await _until(lambda: len(pipe.seen) == 3)

    assert pipe.seen == [b"a", b"b", b"c"]
    assert pipe.sessions == 1


async def test_a_handler_that_waits_stops_nobody(pipe, nursery):
    """As soon as a handler suspends another worker takes requests."""
    async def handler(request: bytes) -> None:
        if request == b"w":
            await trio.sleep(3600)
        pipe.seen.append(request)

    pipe.handler = handler
    nursery.start_soon(pipe.loop.run)
    pipe.send(b"w" * 200 + b"a")
    await _until(lambda: pipe.seen == [b"a"])
    pipe.send(b"b")
    await _until(lambda: pipe.seen == [b"a", b"b"])


async def test_one_worker_on_duty(pipe, nursery):
    """Handlers that suspend briefly bring up more workers, but never two that take requests at the same time."""
    running = 0

    async def handler(request: bytes) -> None:
        nonlocal running
        assert running == 0
        running += 1
        pipe.seen.append(request)
        running -= 1
        if len(pipe.seen) % 3 == 0:
            await trio.lowlevel.checkpoint()

    pipe.handler = handler
    nursery.start_soon(pipe.loop.run)
    for _ in range(50):
        pipe.send(b"x" * 20)
        await trio.lowlevel.checkpoint()
    await _until(lambda: len(pipe.seen) == 1000)

    assert len(nursery.child_tasks) == 1


async def test_spare_workers_end(pipe, nursery):
    """After many handlers waited at once only a few workers are kept."""
    done = trio.Event()

    async def handler(request: bytes) -> None:
        if request == b"w":
            await done.wait()
        pipe.seen.append(request)

    pipe.handler = handler
    nursery.start_soon(pipe.loop.run)
    pipe.send(b"w" * 100 + b"x")
    await _until(lambda: pipe.seen == [b"x"])
    done.set()
    await _until(lambda: len(pipe.seen) == 101)
    await trio.testing.wait_all_tasks_blocked(0.01)

    assert len(pipe.loop._nursery.child_tasks) <= SPARES + 1
    pipe.send(b"y")
    await _until(lambda: len(pipe.seen) == 102)


async def test_lets_trio_run(pipe, nursery):
    """With requests all the time other tasks get a turn at least every slice."""
    cost_s = SLICE_S / 10
    handled = 0

    async def busy(request: bytes) -> None:
        nonlocal handled
        handled += 1
        time.sleep(cost_s)  # noqa: ASYNC251 - the handler keeps the CPU
        pipe.send(b"x")

    pipe.handler = busy
    nursery.start_soon(pipe.loop.run)
    pipe.send(b"x")
    between = []
    for _ in range(50):
        before = handled
        await trio.lowlevel.checkpoint()
        between.append(handled - before)
    nursery.cancel_scope.cancel()

    # Trio takes tasks in any order, so two slices can lie between two turns of this one.
    assert handled > 50
    assert max(between) <= 2 * (SLICE_S / cost_s + 1)


async def test_idle_costs_nothing(pipe, nursery):
    """Without requests it waits in trio."""
    nursery.start_soon(pipe.loop.run)
    pipe.send(b"x")
    await trio.sleep(0.05)
    used, at = time.process_time(), time.monotonic()
    await trio.sleep(0.3)

    assert time.process_time() - used < (time.monotonic() - at) / 10


async def test_request_that_vanished(pipe, nursery):
    """A request can be gone between poll and read: pyfuse3 raises EAGAIN, and the worker starts over."""
    async def handler(request: bytes) -> None:
        if request == b"e":
            raise BlockingIOError(errno.EAGAIN, "gone")
        pipe.seen.append(request)

    pipe.handler = handler
    nursery.start_soon(pipe.loop.run)
    pipe.send(b"eae")
    pipe.send(b"b")
    await _until(lambda: pipe.seen == [b"a", b"b"])

    assert pipe.sessions == 3
    assert not os.get_blocking(pipe.read_fd)


async def test_end_of_the_session(pipe):
    """When the descriptor ends (unmount), handlers that wait are cancelled and run() returns."""
    async def handler(request: bytes) -> None:
        try:
            await trio.sleep(3600)
        finally:
            pipe.seen.append(request)

    pipe.handler = handler
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.loop.run)
            pipe.send(b"abc")
            await trio.sleep(0.05)
            os.close(pipe.write_fd)
    pipe.write_fd = os.dup(pipe.read_fd)

    assert sorted(pipe.seen) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("requests", [b"", b"www"])
async def test_cancellation(pipe, requests):
    """Cancelling ends idle and waiting workers."""
    async def handler(request: bytes) -> None:
        await trio.sleep(3600)

    pipe.handler = handler
    with trio.move_on_after(0.05):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.loop.run)
            pipe.send(requests or b"w")


async def test_an_error_ends_the_loop(pipe):
    """What a session raises is not lost."""
    async def handler(request: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("broken")

    pipe.handler = handler
    pipe.send(b"x")
    with pytest.raises(ExceptionGroup) as caught:
        await pipe.loop.run()

    assert isinstance(caught.value.exceptions[0], KeyError)
