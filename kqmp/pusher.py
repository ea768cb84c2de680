"""`Pusher`: messages into one topic, batched by librdkafka, none of them lost in silence.

The facade over `kqmp.kafka.sending`. A process that forks goes on with its producer, and the child
opens one of its own when it first pushes; what waited in the parent is the parent's to send.
"""

import asyncio
import ctypes
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal

from kqmp.config import Duration, PusherConf, Secret, Size
from kqmp.config.units import parse_duration_ms
from kqmp.errors import ConfigError, PushError
from kqmp.kafka import unclosed, waiting
from kqmp.kafka.losses import OnError
from kqmp.kafka.payload import GivenHeaders, Key, encoded, header_pairs
from kqmp.kafka.producer import Reports
from kqmp.kafka.sending import SERVE_MASK, PusherStatistics, Sender
from kqmp.kafka.waiting import Delivery

__all__ = ["Delivery", "Pusher", "PusherStatistics"]

log = logging.getLogger("kqmp.pusher")

#: How long `close` waits for what is on its way, unless it is told otherwise.
CLOSE_S: Final = 20.0


class Pusher:
    """Pushes messages to one topic: go-queue's `kq.Pusher`, with a broker's word for each.

    `push` hands over and returns; chunks go out when `chunk_size` bytes wait for a partition or
    `flush_interval` has passed. All replicas in sync acknowledge (acks=all), retries neither
    repeat nor reorder (idempotence). May be used from several threads.

    What cannot be delivered reaches `on_error` and the counters, `flush` says how many are not
    delivered, and `close` raises if any was lost. One that is not closed lives until the program
    ends, and is closed then.

    Example:
        >>> with Pusher(["localhost:9092"], "payments") as pusher:
        ...     pusher.push({"amount": 12}, key="customer-7")
    """

    def __init__(  # noqa: PLR0913 - kq's options, by name only
        self,
        brokers: Sequence[str] | str,
        topic: str,
        *,
        chunk_size: Size = "1MiB",
        flush_interval: Duration = "1s",
        sync: bool = False,
        balancer: Literal["hash", "crc32", "fnv1a", "random"] = "hash",
        allow_auto_topic_creation: bool = False,
        max_block: Duration = "60s",
        name: str = "",
        username: str = "",
        password: str | Secret = "",
        ca_file: str = "",
        kafka: Mapping[str, str | float] | None = None,
        reports: Reports = "all",
        on_error: OnError | None = None,
    ) -> None:
        """Connect and look whether the topic is there; blocks for at most some 10 seconds.

        What each argument means stands in `kqmp.config.PUSHER_KEYS`, but for the last two.

        Args:
            brokers: a list of host:port.
            topic: where all messages go.
            chunk_size: bytes that go out at once, for each partition.
            flush_interval: the longest that a message waits for others; 0 sends at once.
            sync: `push` returns when the brokers have the message.
            balancer: which partition a key goes to.
            allow_auto_topic_creation: a missing topic is created, if the brokers do that.
            max_block: the longest that `push` waits for room.
            name: for the logs and the brokers.
            username: SASL user.
            password: its password.
            ca_file: PEM file of authorities; switches TLS on.
            kafka: raw librdkafka producer properties.
            reports: "failures" hears of failed messages alone, which saves `push` a quarter of its
                time; `apush` and `sync` need "all".
            on_error: called as `on_error(message, error)` for each message that was lost, on
                kqmp's own thread or inside `flush` and `close`, one at a time; true if it has
                taken care of the message, which then does not count as lost. Without it failures
                are logged ("kqmp.pusher").

        Raises:
            ConfigError: an argument is wrong, or librdkafka refuses a property.
            BrokerError: no broker answers or they refuse us, or the topic is missing.
        """
        conf = PusherConf(
            brokers=brokers,
            topic=topic,
            chunk_size=chunk_size,
            flush_interval=flush_interval,
            sync=sync,
            balancer=balancer,
            allow_auto_topic_creation=allow_auto_topic_creation,
            max_block=max_block,
            name=name,
            username=username,
            password=password,
            ca_file=ca_file,
            kafka=kafka or {},
        )
        self._begin(conf, reports, on_error)

    @classmethod
    def from_config(
        cls,
        conf: PusherConf | Mapping[str, Any],
        *,
        reports: Reports = "all",
        on_error: OnError | None = None,
    ) -> "Pusher":
        """Make one of a `PusherConf`, or of a parsed section with kq's names.

        Args:
            conf: such as `PusherConf.load("etc/mq.yaml")`, or in a handler's `setup(context)`
                `context.document["KqPusherConf"]`.
            reports: as for `Pusher`.
            on_error: as for `Pusher`.

        Raises:
            ConfigError: as for `Pusher`.
            BrokerError: as for `Pusher`.
        """
        given: object = conf
        if isinstance(given, Mapping):
            given = PusherConf.from_section(given)
        if not isinstance(given, PusherConf):
            kind = type(given).__name__
            raise ConfigError(f"conf must be a PusherConf or a map of its keys, not {kind}")
        pusher = cls.__new__(cls)
        pusher._begin(given, reports, on_error)  # noqa: SLF001 - of this class
        return pusher

    def _begin(self, conf: PusherConf, reports: Reports, on_error: OnError | None) -> None:
        if reports not in ("all", "failures"):
            raise ConfigError(f"reports: {reports!r} is not allowed; use 'all' or 'failures'")
        if conf.sync and reports == "failures":
            raise ConfigError("reports: 'failures' hears of no delivery, which sync waits for")
        self._conf = conf
        self._reports = reports
        self._topic = conf.topic
        self._sync = conf.sync
        self._on_error = on_error
        self._is_closed = False
        self._opening = threading.Lock()
        self._final = PusherStatistics(0, 0, 0, 0)
        self._sender: Sender | None = Sender(conf, reports, on_error)
        unclosed.keep(self, self.close, self._forget)

    def __repr__(self) -> str:
        """Show where it pushes to, without secrets."""
        state = " (closed)" if self._is_closed else ""
        return f"<Pusher {self._conf.name}: {self._topic}{state}>"

    @property
    def name(self) -> str:
        """The topic, as kq's `Name()`."""
        return self._topic

    def push(self, value: object, key: Key = None, headers: GivenHeaders = None) -> Delivery | None:
        """Hand a message over; with `sync` wait until the brokers have it.

        Blocks only while the queue is full, for at most `max_block`.

        Args:
            value: bytes, str (as UTF-8), or what becomes JSON: a dict, a list, a dataclass, a
                msgspec Struct, a pydantic model. None is a tombstone.
            key: messages of one key go to one partition, in order; without a key they are spread.
            headers: names and values; a name may be there more than once.

        Returns:
            With `sync` where the message stands, else None.

        Raises:
            MessageTooLarge: this message is too large for the topic.
            QueueFull: there was no room for as long as `max_block`.
            DeliveryError: with `sync`: the brokers did not take it.
            PushError: the pusher is closed or beyond use, or the value is no valid text.
            TypeError: value, key or headers are of no type that can be pushed.
        """
        kind = type(value)
        # Loosely typed: to check again what is checked here takes as long as all the rest.
        payload: Any = value if kind is bytes or kind is str else encoded(value)
        sender = self._sender
        if sender is None:
            sender = self._reopened()
        if self._sync:
            return waiting.push_and_wait(sender, payload, key, header_pairs(headers))
        if headers is None:
            try:
                sender.produce(self._topic, payload, key)
            except Exception as error:  # noqa: BLE001 - insist raises what it cannot mend
                sender.insist(error, payload, key)
        else:
            self._push_headers(sender, payload, key, headers)
        if not next(sender.numbers) & SERVE_MASK:
            sender.serve()
        elif sender.is_idle:
            sender.wake()
        return None

    def push_with_key(self, key: Key, value: object) -> Delivery | None:
        """Push with a key: kq's `PushWithKey`, key first."""
        return self.push(value, key)

    def kpush(self, key: Key, value: object) -> Delivery | None:
        """Push with a key: kq's `KPush`, key first."""
        return self.push(value, key)

    def push_many(
        self, values: Iterable[object], key: Key = None, headers: GivenHeaders = None
    ) -> None:
        """Push each of `values` with the same key and headers; cheaper than many calls of `push`.

        Where one cannot be pushed its error is raised: those before it are on their way, those
        behind it are not pushed, and `index` of a `PushError` is its place among the values. With
        `sync` each is waited for. Arguments and errors as for `push`.
        """
        if self._sync or headers is not None:
            for index, value in enumerate(values):
                try:
                    self.push(value, key, headers)
                except PushError as error:
                    error.index = index
                    raise
            return
        sender = self._sender or self._reopened()
        sender.push_all(values, key)

    async def apush(self, value: object, key: Key = None, headers: GivenHeaders = None) -> Delivery:
        """Push and return when the brokers have the message, without blocking the event loop.

        Waits for no `flush_interval`: while somebody waits all is sent at once, so that many
        `apush` together (`asyncio.gather`) still go out as batches. For fire and forget call
        `push`, which blocks only while the queue is full.

        Args:
            value: as for `push`, and so key and headers.
            key: its key.
            headers: its headers.

        Raises:
            DeliveryError: the brokers did not take it.
            MessageTooLarge: and all that `push` raises.
        """
        if self._reports != "all":
            raise ConfigError("apush waits for deliveries: make the pusher with reports='all'")
        payload = encoded(value)
        sender = self._sender
        if sender is None:
            sender = await asyncio.to_thread(self._reopened)
        pairs = header_pairs(headers)
        return await waiting.apush(sender, payload, key, pairs, self._conf.max_block_s)

    def flush(self, timeout: Duration | None = None) -> int:
        """Send all that waits, and wait until it is delivered or has failed.

        Args:
            timeout: the longest to wait. None: until librdkafka gives up on the last message
                (5 minutes after it was pushed, `message.timeout.ms`).

        Returns:
            How many are not delivered: what still waits, and what has failed since the last call
            (each told to `on_error`). 0: everything is with the brokers.
        """
        sender = self._sender
        return 0 if sender is None else sender.flush(_seconds(timeout))

    def close(self, timeout: Duration = CLOSE_S) -> None:
        """Flush, then end. Idempotent; what is pushed afterwards is refused.

        Args:
            timeout: the longest to wait for the brokers; what they have not acknowledged by then
                is lost, as far as we know, and told to `on_error`.

        Raises:
            PushError: messages were lost in this pusher's life, now or before, of which nobody
                heard otherwise and of which no `on_error` has taken care.
        """
        if self._sender is not None:
            self._sender.check_closable()
        with self._opening:
            sender, self._sender = self._sender, None
            was_closed, self._is_closed = self._is_closed, True
        if sender is None:
            unclosed.drop(self)
            return
        try:
            sender.close(_seconds(timeout) or 0.0)
        except BaseException:
            self._sender, self._is_closed = sender, was_closed
            raise
        self._final = sender.statistics()
        unclosed.drop(self)
        if lost := sender.losses.lost:
            raise PushError(
                f"topic {self._topic}: {lost:,} of {self._final.pushed:,} messages were lost; the"
                f" first: {sender.losses.first}"
            )

    async def aclose(self, timeout: Duration = CLOSE_S) -> None:
        """Close without blocking the event loop; arguments and errors as for `close`."""
        await asyncio.to_thread(self.close, timeout)

    def statistics(self) -> PusherStatistics:
        """Return the counters of this process."""
        sender = self._sender
        return self._final if sender is None else sender.statistics()

    def __enter__(self) -> "Pusher":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; over another exception a loss is only logged."""
        try:
            self.close()
        except PushError as lost:
            if error is None:
                raise
            log.error("%s", lost)  # noqa: TRY400 - its traceback says nothing

    async def __aenter__(self) -> "Pusher":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close without blocking the event loop."""
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _push_headers(self, sender: Sender, value: Any, key: Key, headers: GivenHeaders) -> None:
        pairs = header_pairs(headers)
        how = (-1, sender.report_with(pairs), None, 0, pairs)
        try:
            sender.produce(self._topic, value, key, *how)
        except Exception as error:  # noqa: BLE001 - insist raises what it cannot mend
            sender.insist(error, value, key, how)

    def _reopened(self) -> Sender:
        """Return the producer of a process that was forked off, opened when it first pushes."""
        with self._opening:
            if self._is_closed:
                raise PushError(f"topic {self._topic}: the pusher is closed")
            if self._sender is None:
                self._sender = Sender(self._conf, self._reports, self._on_error)
                unclosed.see_to_end()
            return self._sender

    def _forget(self) -> None:
        """Leave the parent's producer alone, in a child: its threads do not exist here."""
        self._opening = threading.Lock()
        sender, self._sender = self._sender, None
        if sender is not None:
            # Never freed: librdkafka's destruction would wait for those threads for ever.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(sender))


def _seconds(timeout: Duration | None) -> float | None:
    if timeout is None:
        return None
    try:
        return parse_duration_ms(timeout) / 1000
    except ValueError as error:
        raise ConfigError(f"timeout: {timeout!r} is not allowed; use {error}") from None
