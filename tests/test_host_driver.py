"""The driver: pauses, the lock queue, the guest, the way out of effects.  Time is mocked where it matters."""

import pytest
import trio
import trio.testing
from host_kit import PATIENCE_S

from memhpfs.errors import Busy, Interrupted
from memhpfs.host.caller import Caller
from memhpfs.host.driver import Driver
from memhpfs.kernel.boot import boot
from memhpfs.kernel.journal import DeviceGone, Uevent
from memhpfs.kernel.lock import with_hotplug_lock
from memhpfs.kernel.pause import Nudge, Op, Pause
from memhpfs.kernel.spec import RamRange, Spec
from memhpfs.sysfs.tree import Tree
from memhpfs.units import GIB

SECOND = 1_000_000_000


class Sink:
    """Remembers what went out; stale names take a second to be dropped."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.stale = 0

    def send(self, action, devpath, subsystem, extra=()):
        self.out.append(f"{action}@{devpath}")

    @property
    def settled(self):
        return not self.stale

    def drop(self, stale):
        self.stale += len(stale.entries)

    async def settle(self):
        await trio.sleep(1)
        self.stale = 0


class Known(Caller):
    """A caller whose fate the test knows."""

    fatal = False

    def dying(self):
        return self.fatal

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def driver() -> Driver:
    kernel = boot(Spec("6.12", "x86_64", (RamRange(0x100000, 2 * GIB),)))
    kernel.journal.drain()
    return Driver(kernel, Tree(kernel, lambda: 0))


async def test_an_op_without_pauses_does_not_wait(driver):
    """No checkpoint, so no other task can come between."""
    def op() -> Op[int]:
        yield Pause("free")
        return 7

    with trio.testing.assert_no_checkpoints():
        assert await driver.run(op()) == 7


async def test_a_pause_lasts_what_it_costs(driver, autojump_clock):
    """cost_ns is time on the clock."""
    def op() -> Op[float]:
        yield Pause("work", 3 * SECOND)
        yield Pause("more work", 2 * SECOND)
        return trio.current_time()

    started = trio.current_time()
    assert await driver.run(op()) - started == pytest.approx(5)


@pytest.mark.parametrize("interruptible", [True, False])
async def test_signal(driver, autojump_clock, nursery, interruptible):
    """A signal ends an interruptible pause at once, and is kept for the next one otherwise."""
    caller = Known(0)

    def op() -> Op[list[Nudge]]:
        return [(yield Pause("first", 10 * SECOND, interruptible)), (yield Pause("second", 10 * SECOND, True))]

    async def signal() -> None:
        await trio.sleep(1)
        caller.signal()

    started = trio.current_time()
    nursery.start_soon(signal)
    nudges = await driver.run(op(), lambda: caller)
    nursery.cancel_scope.cancel()

    assert nudges == ([Nudge.SIGNAL, Nudge.SIGNAL] if interruptible else [Nudge.GO, Nudge.SIGNAL])
    assert trio.current_time() - started == pytest.approx(1 if interruptible else 10)


async def test_effects_leave_in_order_before_the_end(driver, autojump_clock):
    """Uevents are out when a pause begins, and when the Op has ended, also with an error."""
    driver.uevents = sink = Sink()

    def op() -> Op[None]:
        driver.kernel.journal.add(Uevent("offline", "memory", 1))
        yield Pause("work", SECOND)
        assert sink.out == ["offline@/devices/system/memory/memory1"]
        driver.kernel.journal.add(Uevent("online", "memory", 1))
        raise Busy()

    with pytest.raises(Busy):
        await driver.run(op())

    assert sink.out[1:] == ["online@/devices/system/memory/memory1"]


async def test_lock_queue(driver, autojump_clock, nursery):
    """Waiters get the lock one after the other, in their order, as soon as it is free."""
    order: list[tuple[int, float]] = []
    started = trio.current_time()

    async def write(number: int) -> None:
        def work() -> Op[None]:
            order.append((number, trio.current_time() - started))
            yield Pause("work", SECOND)

        await driver.run(with_hotplug_lock(driver.kernel, "test", work), lambda: Known(0))

    for number in range(4):
        nursery.start_soon(write, number)
        await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(10)

    assert [number for number, _ in order] == [0, 1, 2, 3]
    assert [at for _, at in order] == pytest.approx([0, 1, 2, 3])


async def test_a_waiter_that_goes_passes_its_turn_on(driver, autojump_clock):
    """Waiters that fail, die or are cancelled do not keep the others waiting."""
    done: list[str] = []

    async def write(name: str, caller: Known) -> None:
        def work() -> Op[None]:
            if name == "fails":
                raise Busy()
            yield Pause("work", SECOND)
            done.append(name)

        try:
            await driver.run(with_hotplug_lock(driver.kernel, name, work), lambda: caller)
        except (Busy, Interrupted) as error:
            done.append(f"{name}: {type(error).__name__}")

    callers = {name: Known(0) for name in ("holds", "fails", "dies", "cancelled", "last")}
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery, trio.open_nursery() as doomed:
            for name, caller in callers.items():
                (doomed if name == "cancelled" else nursery).start_soon(write, name, caller)
                await trio.testing.wait_all_tasks_blocked()
            callers["dies"].fatal = True
            callers["dies"].signal()
            doomed.cancel_scope.cancel()

    assert done == ["dies: Interrupted", "holds", "fails: Busy", "last"]


async def test_handled_signal_in_the_lock_queue(driver, autojump_clock, nursery):
    """The system call starts over, and the signal does not interrupt what follows."""
    caller = Known(0)

    def work(nudges: list[Nudge]) -> Op[None]:
        nudges.append((yield Pause("work", SECOND, True)))

    nudges: list[Nudge] = []
    nursery.start_soon(driver.run, with_hotplug_lock(driver.kernel, "first", lambda: work([])))
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(
        driver.run, with_hotplug_lock(driver.kernel, "second", lambda: work(nudges)), lambda: caller
    )
    await trio.testing.wait_all_tasks_blocked()
    caller.signal()
    await trio.sleep(5)

    assert nudges == [Nudge.GO]


async def test_the_guest_works_in_order(driver, nursery):
    """One Op after the other; a refusal or a bug ends only its own, and a bug taints."""
    seen: list[str] = []
    idle: list[int] = []

    def op(name: str, error: Exception | None = None) -> Op[None]:
        seen.append(f"{name} begins")
        yield Pause("work", 1_000_000)
        seen.append(f"{name} ends")
        if error:
            raise error

    driver.guest_idle = lambda: idle.append(len(seen))
    nursery.start_soon(driver.run_guest)
    driver.work += [op("a"), op("b", Busy()), op("c", KeyError("bug")), op("d")]
    driver.wake_guest()
    with trio.fail_after(PATIENCE_S):
        while len(idle) < 4:
            await trio.sleep(0.001)
    nursery.cancel_scope.cancel()

    assert seen == [f"{name} {what}" for name in "abcd" for what in ("begins", "ends")]
    assert idle == [2, 4, 6, 8]
    assert driver.tainted == ["the guest: KeyError: 'bug'"]


async def test_stale_names_are_dropped_before_an_op_goes_on(driver, autojump_clock):
    """Whoever is told of a removal finds the old path gone."""
    driver.caches = sink = Sink()

    def op() -> Op[None]:
        driver.kernel.journal.add(DeviceGone("memory", 3, driver.kernel.blocks[3].serial, (0,)))
        yield Pause("firmware", 1)
        assert sink.settled
        driver.kernel.journal.add(DeviceGone("memory", 4, driver.kernel.blocks[4].serial, (0,)))

    await driver.run(op())
    assert sink.settled


async def test_cancelling_undoes(driver):
    """A cancelled Op is closed, which undoes what it began; the lock is free afterwards."""
    undone: list[str] = []

    def work() -> Op[None]:
        try:
            yield Pause("work", 3600 * SECOND)
        finally:
            undone.append("undone")

    with trio.move_on_after(0.01):
        await driver.run(with_hotplug_lock(driver.kernel, "test", work))

    assert undone == ["undone"]
    assert driver.kernel.lock.owner is None


async def test_an_op_that_costs_nothing_lets_others_run(driver, nursery):
    """Pauses without cost are gone through at once, but not for long."""
    def op() -> Op[None]:
        while True:
            yield Pause("again")

    nursery.start_soon(driver.run, op())
    with trio.fail_after(PATIENCE_S):
        for _ in range(20):
            await trio.sleep(0.001)
    nursery.cancel_scope.cancel()


async def test_kernel_log(driver):
    """Log records become lines with a level."""
    lines: list[tuple[str, str]] = []
    driver.kernel_log = lambda seconds, level, text: lines.append((level, text))

    driver.kernel.journal.log("acpi-offline-failed", block_id=7)
    driver.flush()

    assert lines == [("warning", "memory memory7: Offline failed.")]
