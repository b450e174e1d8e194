"""Tests of models beside the rounds: how many may wait, and an end that waits for nobody."""

import threading

from flq.algorithm.model_state import ModelState
from flq.master.evaluator import Evaluator
from tests.master.hands import PATIENCE_S


class Learner(object):
    """Its first test lasts until the test lets it end."""

    def __init__(self):
        self.tests, self.under_way, self.go_on = 0, threading.Event(), threading.Event()

    def evaluate(self, params, non_trainable):
        self.tests += 1
        self.under_way.set()
        assert self.go_on.wait(PATIENCE_S)
        return "tested"


def test_who_waits_to_hand_over_a_model_is_not_held_up_by_the_end():
    """Found by a master that was ended while it tested what the one before it had not: its driver
    hung in a queue that nobody emptied.
    """
    learner, found = Learner(), []
    evaluator = Evaluator(learner, lambda round_, result: found.append((round_, result)))
    model = ModelState(*[None] * len(ModelState._fields))
    evaluator.start()
    putting = threading.Thread(
        target=lambda: [evaluator.put(round_, model) for round_ in range(10)], daemon=True)
    putting.start()
    assert learner.under_way.wait(PATIENCE_S)
    closing = threading.Thread(target=evaluator.close, daemon=True)
    closing.start()
    putting.join(PATIENCE_S)
    assert not putting.is_alive() and closing.is_alive(), "the test under way is waited for"
    learner.go_on.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive() and learner.tests == 1 and found == [(0, "tested")]
