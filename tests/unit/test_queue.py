"""`Queue` without Kafka: what it refuses before it starts anything."""

import functools
import logging

import pytest

from kqmp import ConfigError, HandlerImportError, KqConf, Queue
from kqmp.config import KEYS
from kqmp.engine import _level
from kqmp.errors import EngineEnded, ExitCode
from kqmp.handler import loading
from kqmp.roles.meter import Meter
from kqmp.roles.program import Engine

CONF = KqConf(brokers="127.0.0.1:1", group="g", topic="t", name="mq", password="pw-1", username="u")


def consume(key: bytes, value: bytes) -> None: ...


def test_it_names_itself_without_secrets():
    assert repr(Queue(CONF, consume)) == f"<Queue mq: t -> {__name__}:consume>"


@pytest.mark.parametrize(
    "handler", [lambda key, value: None, functools.partial(consume, b""), 42, "no colon"]
)
def test_a_handler_that_no_other_process_finds_is_refused(handler):
    with pytest.raises(HandlerImportError):
        Queue(CONF, handler)


def test_the_handler_may_be_named_in_the_configuration():
    with pytest.raises(ConfigError, match="handler: missing"):
        Queue(CONF)
    named = Queue(CONF.replace(handler="mqs:consume"))
    assert "mqs:consume" in repr(named)
    assert "other:consume" in repr(Queue(CONF.replace(handler="mqs:consume"), "other:consume"))


def on_error(message, error): ...


def test_kqs_options_go_by_their_names():
    queue = Queue(
        CONF, consume, commit_interval="5s", queue_capacity=7, max_wait=0.2, on_error=on_error
    )
    assert (queue.conf.commit_interval_ms, queue.conf.queue_capacity) == (5000, 7)
    assert queue.conf.max_wait_ms == 200
    ref, _ = queue.__kqmp_queue__()
    assert ref.on_error is not None
    assert ref.on_error.target == f"{__name__}:on_error"
    assert Queue(CONF, consume).conf is CONF


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"commit_interval": "5"}, "commit_interval: '5' is not allowed; use a duration"),
        ({"queue_capacity": 0}, "queue_capacity: 0 is not allowed; use a whole number from 1"),
        ({"max_wait": "1h"}, "max_wait: '1h' is not allowed"),
        ({"metrics": 5}, "metrics: 5 cannot be called; pass a function of one argument"),
        (
            {"metrics": print, "metrics_interval": "10ms"},
            "metrics_interval: '10ms' is not allowed; use a duration from 1s to 1h",
        ),
        ({"on_error": lambda message, error: None}, "on_error: a lambda has no name"),
        ({"on_error": "somewhere"}, "on_error 'somewhere': write it as somewhere:function"),
    ],
)
def test_an_option_that_is_wrong_is_refused(options, text):
    with pytest.raises((ConfigError, HandlerImportError)) as caught:
        Queue(CONF, consume, **options)
    assert str(caught.value).startswith(text)


def test_the_level_of_the_configuration_is_that_of_the_log():
    chatty = CONF.replace(log={"level": "severe"})
    assert Queue(chatty, consume)._level == "CRITICAL"
    assert Queue(chatty, consume, log_level="debug")._level == "DEBUG"


def test_a_metrics_function_may_raise_and_stop_the_thread_of_nobody_else(caplog):
    seen = []

    def function(metrics):
        seen.append(metrics)
        if metrics == "bad":
            raise SystemExit(3)

    meter = Meter(function)
    for metrics in ("good", "bad", "good again"):
        meter.put(metrics)
    meter.close()
    assert seen == ["good", "bad", "good again"]
    assert "metrics: the function failed" in caplog.text


def test_a_configuration_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"must be a KqConf, not dict"):
        Queue({"group": "g"}, consume)


def test_a_probe_sees_what_it_holds():
    ref, conf = Queue(CONF, consume).__kqmp_queue__()
    assert ref.target == f"{__name__}:consume"
    assert [getattr(KqConf.from_wire(conf), key.name) for key in KEYS] == [
        getattr(CONF, key.name) for key in KEYS
    ]


def test_in_a_processor_it_starts_nothing(monkeypatch):
    monkeypatch.setitem(loading._state, "processor", True)
    queue = Queue(CONF, consume)
    for start in (queue.start, queue.__enter__):
        with pytest.raises(HandlerImportError, match='if __name__ == "__main__"'):
            start()
    assert not queue.is_running


def test_a_queue_that_does_not_run_can_be_stopped():
    queue = Queue(CONF, consume)
    queue.stop()
    queue.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("wanted", "logger_level", "level"),
    [
        (None, None, "INFO"),
        (None, logging.WARNING, "WARNING"),
        (None, 35, "WARNING"),
        (None, 5, "DEBUG"),
        ("debug", logging.ERROR, "DEBUG"),
        (logging.ERROR, None, "ERROR"),
        (1000, None, "CRITICAL"),
    ],
)
def test_levels(wanted, logger_level, level):
    logger = None
    if logger_level is not None:
        logger = logging.getLogger("test.queue.levels")
        logger.setLevel(logger_level)
    assert _level(wanted, logger) == level


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="log_level: 'loud'"):
        Queue(CONF, consume, log_level="loud")


@pytest.mark.parametrize("code", [code for code in ExitCode if code])
def test_every_end_is_the_error_that_names_it(code):
    engine = Engine.__new__(Engine)
    engine._last_word = type("Ended", (), {"exit_code": int(code), "text": "one\ntwo"})()
    error = engine.error()
    assert error.exit_code is code
    assert "one" in str(error)
    if code is ExitCode.CONFIG:
        assert error.problems == ("one", "two")


def test_a_clean_end_is_none():
    engine = Engine.__new__(Engine)
    engine._last_word = type("Ended", (), {"exit_code": 0, "text": ""})()
    assert engine.error() is None


def test_the_error_crosses_processes():
    import pickle

    error = pickle.loads(pickle.dumps(EngineEnded("why", ExitCode.DRAIN_DEADLINE)))
    assert (str(error), error.exit_code) == ("why", ExitCode.DRAIN_DEADLINE)
