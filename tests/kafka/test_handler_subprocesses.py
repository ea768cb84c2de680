"""Handlers may start processes of their own: a multiprocessing.Pool, a subprocess.

Method: `setup` makes a Pool of two; every message passes through it. Now and then one also starts a
program and a forked process, both of which must end on TERM, though the processor itself does not.
`close` ends the Pool. Everything is handled once, SIGTERM exits 0, and nothing is left behind.
"""

import pytest

from tests.kafka.conftest import SceneFactory

pytestmark = pytest.mark.engine

WITH_CHILDREN = """
import multiprocessing, signal, subprocess, time
from tests.support.ledger import Ledger

class Consumer:
    def setup(self, context):
        self.ledger = Ledger()
        self.fork = multiprocessing.get_context("fork")
        self.pool = self.fork.Pool(2)

    def consume(self, message):
        with self.ledger.handling(message):
            assert self.pool.apply(len, (message.value,)) == len(message.value)
            if int(message.value.split()[0]) % 250 == 0:
                child = subprocess.Popen(["sleep", "60"])
                child.terminate()
                assert child.wait(10) == -signal.SIGTERM
                child = self.fork.Process(target=time.sleep, args=(60,))
                child.start()
                child.terminate()
                child.join(5)
                code = child.exitcode
                child.kill()
                assert code == -signal.SIGTERM

    def close(self):
        self.pool.terminate()
        self.pool.join()

consume = Consumer
"""


def test_a_handler_with_a_pool_and_subprocesses(scene: SceneFactory) -> None:
    field = scene(partitions=2)
    field.feed.send(2000)
    field.watch_commits()
    engine = field.engine(WITH_CHILDREN)
    field.wait_all_handled(engine)
    engine.stop()
    field.verdict().assert_sound(duplicates_at_most=0)
    assert "failed 0" in engine.output
    assert field.committed() == field.ends()
