"""`ServiceGroup` without Kafka: order, errors, deadlines, with services that tell what they do."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from kqmp import ConfigError, EngineEnded, ExitCode, HandlerImportError, KqConf, Queue, ServiceGroup
from kqmp.errors import BrokerError
from kqmp.handler import loading
from kqmp.roles import group as group_module
from kqmp.roles.program import Engine

CONF = KqConf(brokers="127.0.0.1:1", group="g", topic="t", name="mq")


def consume(key: bytes, value: bytes) -> None: ...


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a group wait for the error of a start(), however late its thread runs."""
    monkeypatch.setattr(group_module, "BLOCKS_S", 600.0)


class Web:
    """A service whose start() blocks until stop()."""

    def __init__(self, name: str, told: list[str], end: BaseException | None = None) -> None:
        self.name = name
        self.told = told
        self.end = end
        self.started = threading.Event()
        self._stop = threading.Event()

    def __repr__(self) -> str:
        return f"<Web {self.name}>"

    def start(self) -> None:
        self.told.append(f"start {self.name}")
        self.started.set()
        if self.end is not None:
            raise self.end
        self._stop.wait()
        self._stop.clear()

    def stop(self) -> None:
        self.told.append(f"stop {self.name}")
        self._stop.set()


class Pool(Web):
    """A service whose start() returns, and whose stop() may fail."""

    def start(self) -> None:
        self.told.append(f"start {self.name}")

    def stop(self) -> None:
        self.told.append(f"stop {self.name}")
        if self.end is not None:
            raise self.end


class FakeEngine(Engine):
    """What a group sees of an engine: no process."""

    def __init__(self, queue: "FakeQueue", changed: Any) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()
        self._queue = queue
        self._changed = changed
        self.code = ExitCode.CLEAN

    @property
    def exit(self) -> tuple[ExitCode, str]:
        return self.code, "why"

    def begin(self) -> None:
        self.started.set()
        self._changed()

    def end(self, code: ExitCode = ExitCode.CLEAN) -> None:
        self.code = code
        self.ended.set()
        self.started.set()
        self._changed()

    def stop(self, within_ms: int | None = None) -> None:
        assert within_ms is not None
        self._queue.within_ms.append(within_ms)
        self._queue.told.append(f"stop {self._queue.label}")
        if not self._queue.is_stubborn:
            self.end()

    def interrupt(self, count: int) -> None:
        if count > 1:
            self.end(ExitCode.INTERRUPTED)

    def kill(self) -> None:
        self._queue.told.append(f"kill {self._queue.label}")
        self.end(ExitCode.GAVE_UP)


class FakeQueue(Queue):
    """A queue whose engine is a fake one."""

    def __init__(
        self, label: str, told: list[str], conf: KqConf = CONF, *, is_stubborn: bool = False
    ) -> None:
        super().__init__(conf, consume)
        self.label = label
        self.told = told
        self.is_stubborn = is_stubborn
        self.within_ms: list[int] = []
        self.lives: list[bool] = []
        self.engine = FakeEngine(self, lambda: None)

    def __repr__(self) -> str:
        return f"<Queue {self.label}>"

    def __kqmp_begin__(self, *, live: bool, changed: Any = None, observed: Any = None) -> Engine:
        self.told.append(f"start {self.label}")
        self.lives.append(live)
        self.engine = FakeEngine(self, changed)
        self.engine.begin()
        return self.engine


def after(event: threading.Event, act: Callable[[], None]) -> None:
    """Do something on another thread once an event is set."""

    def work() -> None:
        event.wait()
        act()

    threading.Thread(target=work).start()


def stops(told: list[str]) -> list[str]:
    """Return who was stopped, in order; when each start() runs is up to its thread."""
    return [line for line in told if line.startswith("stop ")]


def runs(group: ServiceGroup) -> bool:
    """Return `is_running` in a way that leads no type checker to think it stays so."""
    return group.is_running


def group_of(*services: Any, **options: Any) -> ServiceGroup:
    group = ServiceGroup(**options)
    for service in services:
        group.add(service)
    return group


def test_services_start_in_order_and_stop_in_reverse() -> None:
    told: list[str] = []
    webs = [Web(name, told) for name in "abc"]
    group = group_of(*webs)
    with group as entered:
        assert all(web.started.wait(60) for web in webs)
        assert entered is group
        assert runs(group)
        assert sorted(told) == ["start a", "start b", "start c"]
    assert not runs(group)
    assert told[3:] == ["stop c", "stop b", "stop a"]
    # It may run again.
    with group:
        pass
    assert len(told) == 12


def test_a_queue_is_a_service_beside_others() -> None:
    told: list[str] = []
    pool, queues, web = Pool("pool", told), [FakeQueue(n, told) for n in "qr"], Web("web", told)
    with group_of(pool, *queues, web):
        assert web.started.wait(60)
    assert told[-4:] == ["stop web", "stop r", "stop q", "stop pool"]


def test_queues_side_by_side_drain_at_the_same_time() -> None:
    told: list[str] = []
    first, second = FakeQueue("q", told, is_stubborn=True), FakeQueue("r", told, is_stubborn=True)
    group = group_of(first, second)
    group.__enter__()
    stopper = threading.Thread(target=group.stop)
    stopper.start()
    while told.count("stop q") + told.count("stop r") < 2:
        assert stopper.is_alive()
    first.engine.end()
    second.engine.end()
    stopper.join()
    assert not group.is_running
    group.__exit__(None, None, None)


@pytest.mark.usefixtures("patient")
def test_one_that_fails_at_its_start_stops_the_others_and_its_error_is_raised() -> None:
    told: list[str] = []
    wrong = OSError("port 80 is in use")
    group = group_of(Web("a", told), Web("bad", told, wrong), FakeQueue("q", told))
    with pytest.raises(OSError, match="port 80") as caught, group:
        pytest.fail("entered")
    assert caught.value is wrong
    assert caught.value.__notes__ == ["in <Web bad> of a ServiceGroup"]
    assert "stop a" in told
    assert "stop bad" not in told
    assert not group.is_running


def test_start_raises_what_failed_later_with_what_followed() -> None:
    told: list[str] = []
    queue = FakeQueue("q", told)
    group = group_of(Pool("pool", told, ValueError("no")), queue, Web("web", told))

    def fail() -> None:
        queue.engine.end(ExitCode.BROKER)

    web = group.__kqmp_group__()[2]
    assert isinstance(web, Web)
    after(web.started, fail)
    with pytest.raises(BrokerError, match="why") as caught:
        group.start()
    assert caught.value.__notes__ == [
        "in <Queue q> of a ServiceGroup",
        "then <Web pool>: ValueError: no",
    ]
    assert told[-2:] == ["stop web", "stop pool"]


def test_a_queue_that_ends_by_itself_ends_all() -> None:
    told: list[str] = []
    queue = FakeQueue("q", told)
    group = group_of(queue, Web("web", told))
    web = group.__kqmp_group__()[1]
    assert isinstance(web, Web)

    def end() -> None:
        queue.engine.end()

    after(web.started, end)
    group.start()
    assert told[-1] == "stop web"


@pytest.mark.usefixtures("patient")
def test_a_queue_that_cannot_be_started_is_the_group_s_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    queue = FakeQueue("q", told)

    def refuse(**_: Any) -> Engine:
        raise RuntimeError("is running already")

    monkeypatch.setattr(queue, "__kqmp_begin__", refuse)
    never = Web("never", told)
    with pytest.raises(RuntimeError, match="already"), group_of(Web("a", told), queue, never):
        pytest.fail("entered")
    assert sorted(told) == ["start a", "stop a"]


def test_an_exception_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), group_of(Pool("pool", [], ValueError("no"))):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="no"), group_of(Pool("pool", [], ValueError("no"))):
        pass


def test_one_deadline_holds_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "LATE_S", 0.05)
    monkeypatch.setattr(group_module._Member, "late_s", 0.05)
    told: list[str] = []

    class Stuck(Pool):
        def stop(self) -> None:
            self.told.append("stop stuck")
            threading.Event().wait(30)

    queue = FakeQueue("q", told)
    group = group_of(queue, Stuck("stuck", told), stop_timeout="50ms")
    late = pytest.raises(EngineEnded, match=r"<Web stuck> did not stop within 0.05 s")
    with late as caught, group:
        pass
    assert caught.value.exit_code is ExitCode.DRAIN_DEADLINE
    # The queue is stopped all the same, and has no time left.
    assert queue.within_ms == [0]


def test_a_queue_whose_coordinator_stands_still_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module._QueueMember, "late_s", 0.05)
    told: list[str] = []
    group = group_of(FakeQueue("q", told, is_stubborn=True), stop_timeout=0.05)
    with pytest.raises(EngineEnded, match="why"), group:
        pass
    assert told == ["start q", "stop q", "kill q"]


def test_the_deadline_is_the_largest_drain_timeout_unless_it_is_named() -> None:
    told: list[str] = []
    queues = [FakeQueue(t, told, CONF.replace(drain_timeout=t)) for t in ("40m", "50m")]
    with group_of(*queues):
        pass
    limits = [queue.within_ms[0] for queue in queues]
    assert all(40 * 60_000 < limit <= 50 * 60_000 for limit in limits)
    named = FakeQueue("q", told)
    with group_of(named, stop_timeout="2h"):
        pass
    assert 60 * 60_000 < named.within_ms[0] <= 120 * 60_000


def test_signals_stop_the_group_in_order() -> None:
    told: list[str] = []
    last = Web("b", told)
    after(last.started, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    group_of(Web("a", told), last).start()
    assert stops(told) == ["stop b", "stop a"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_exception_out_of_the_program_s_own_signal_handler_stops_the_group_first() -> None:
    told: list[str] = []
    last = Web("b", told)

    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(3)

    def terminate() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        # Not while `start` is still at the last service: an exception that comes there, between
        # two lines of its own, finds nobody to stop the others.
        after(last.started, terminate)
        with pytest.raises(SystemExit) as caught:
            group_of(Web("a", told), last).start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 3
    assert stops(told) == ["stop b", "stop a"]


def test_a_second_interrupt_ends_at_once() -> None:
    told: list[str] = []
    queue = FakeQueue("q", told, is_stubborn=True)

    def interrupt_twice() -> None:
        for seen in ("start q", "stop q"):
            while seen not in told:
                pass
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_twice).start()
    with pytest.raises(SystemExit) as caught:
        group_of(queue).start()
    assert caught.value.code == 130


def test_a_service_may_stop_its_group() -> None:
    told: list[str] = []

    class Once(Pool):
        def start(self) -> None:
            group.stop()

    group = group_of(Web("a", told), Once("once", told))
    group.start()
    assert stops(told) == ["stop once", "stop a"]


def test_one_queue_may_draw_its_status_line_several_may_not() -> None:
    told: list[str] = []
    for count in (1, 2):
        queues = [FakeQueue("q", told) for _ in range(count)]
        threading.Thread(target=lambda ones=queues: stop_when_started(ones)).start()
        group_of(*queues).start()
        assert [queue.lives for queue in queues] == [[count == 1]] * count


def stop_when_started(queues: list[FakeQueue]) -> None:
    while not all(queue.lives for queue in queues):
        pass
    queues[0].engine.started.wait()
    queues[0].engine.end()


def test_the_event_loop_goes_on() -> None:
    told: list[str] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        may_stop = asyncio.Event()

        class Slow(Pool):
            def stop(self) -> None:
                # Would hang if the loop were blocked by the group's stop.
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(30)
                told.append("stopped")

        async with group_of(Slow("slow", told), FakeQueue("q", told)) as group:
            assert group.is_running
            may_stop.set()
        assert may_stop.is_set()

    asyncio.run(program())
    assert told[-1] == "stopped"


@pytest.mark.usefixtures("patient")
def test_async_with_raises_too() -> None:
    async def program() -> None:
        async with group_of(Web("bad", [], OSError("port"))):
            pytest.fail("entered")

    with pytest.raises(OSError, match="port"):
        asyncio.run(program())


@pytest.mark.parametrize(
    ("service", "text"),
    [
        (42, r"add\(42\): it has no start\(\)"),
        (Web, r"add\(Web\): it is a class; add an object"),
        (type("Half", (), {"start": lambda self: None})(), r"it has no stop\(\)"),
    ],
)
def test_what_is_no_service_is_refused(service: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ServiceGroup().add(service)


def test_a_coroutine_function_is_refused() -> None:
    class Later:
        async def start(self) -> None: ...
        def stop(self) -> None: ...

    with pytest.raises(ConfigError, match=r"start\(\) is a coroutine function"):
        ServiceGroup().add(Later())


def test_one_service_is_added_once_and_before_the_start() -> None:
    told: list[str] = []
    web = Web("a", told)
    group = group_of(web)
    for twice in (web, group):
        with pytest.raises(ConfigError, match="already"):
            group.add(twice)
    with group:
        with pytest.raises(RuntimeError, match="before its start"):
            group.add(Web("b", told))
        with pytest.raises(RuntimeError, match="is running already"):
            group.start()
    with pytest.raises(ConfigError, match="empty"):
        ServiceGroup().start()


@pytest.mark.parametrize("value", ["soon", 0, -1, True])
def test_a_deadline_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"stop_timeout: .* is not allowed"):
        ServiceGroup(stop_timeout=value)


def test_in_a_processor_it_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setitem(loading._state, "processor", True)
    with pytest.raises(HandlerImportError, match='if __name__ == "__main__"'):
        group_of(Web("a", told)).start()
    assert told == []


def test_a_group_that_does_not_run_can_be_stopped() -> None:
    group = ServiceGroup()
    group.stop()
    group.__exit__(None, None, None)
    assert not group.is_running
