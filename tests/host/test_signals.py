"""What SIGTERM and Ctrl-C do for as long as a program has something to finish."""

import os
import signal

import pytest

from flq.host import signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_within_the_block_a_signal_asks_to_stop_and_after_it_does_what_it_did(number):
    asked, before = [], []
    outer = signal.signal(number, lambda *_: before.append(number))
    try:
        with pytest.raises(ValueError), signals.calling(lambda: asked.append(number)):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            raise ValueError("the block fails")
        assert (asked, before) == ([number] * 2, [])
        os.kill(os.getpid(), number)
        assert (asked, before) == ([number] * 2, [number])
    finally:
        signal.signal(number, outer)
