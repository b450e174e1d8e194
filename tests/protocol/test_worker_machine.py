"""The worker's machine: its table, and each of its paths by example."""

import pytest

from flq.protocol import worker_machine as machine
from flq.protocol.worker_machine import (
    ASKING,
    BIDDING,
    DONE,
    FETCHING,
    PHASES,
    REGISTERING,
    TRAINING,
    UPLOADING,
    Answered,
    Ask,
    Exchanged,
    Exit,
    Fetch,
    ModelCame,
    NothingNew,
    Proposed,
    Refused,
    Register,
    Registered,
    Retry,
    SendBid,
    SendUpload,
    Settle,
    Train,
)

EVENTS = (Registered(0, 0, "bid", "", False), ModelCame(1, False), NothingNew(),
          Proposed(False, False), Answered(0, "open"), Exchanged(3, "accepted", 4, False),
          Refused("retry"))
ANSWERED_BY = {
    REGISTERING: {Registered}, FETCHING: {ModelCame, NothingNew}, TRAINING: {Proposed},
    BIDDING: {Answered, Exchanged}, UPLOADING: {Answered, Exchanged},
    ASKING: {Answered, Exchanged}
}


class Talk(object):
    """A machine that is told one event after the other; `effect` is what it asked for last."""

    def __init__(self, **held):
        self.state, self.effect = machine.initial_state(**held), machine.start()

    def __call__(self, *events):
        for event in events:
            self.state, self.effect = machine.step(self.state, event)
        return self


def in_phase(phase):
    """A worker of round 3 in that phase; in the last three it owes an answer to it."""
    talk = Talk(have=3)
    path = {
        REGISTERING: [], FETCHING: [Registered(3, 3, "nothing", "", False)], TRAINING: [
            Registered(3, 3, "bid", "", False)
        ], BIDDING: [Registered(3, 3, "bid", "", False),
                     Proposed(False, True)],
        UPLOADING: [Registered(3, 3, "bid", "", False),
                    Proposed(False, False)],
        ASKING: [Registered(3, 3, "bid", "", False),
                 Proposed(False, False),
                 Answered(3, "open")], DONE: [Refused("finish")],
    }[phase]
    talk(*path)
    assert talk.state.phase == phase
    return talk


def test_the_table_has_no_blank_cell():
    assert {type(event) for event in EVENTS} == set(machine.TABLE)
    assert all(
        set(row) == set(PHASES) and all(callable(handler) for handler in row.values())
        for row in machine.TABLE.values())


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_taken_in_every_phase_and_gives_one_effect(phase, event):
    talk = in_phase(phase)(event)
    assert isinstance(talk.effect,
                      (Register, Fetch, Train, SendBid, SendUpload, Ask, Settle, Retry, Exit))
    assert phase != DONE or talk.state.phase == DONE


@pytest.mark.parametrize("phase", sorted(ANSWERED_BY))
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_answers_another_question_makes_it_register(phase, event):
    """It cannot happen; if it does, the session's word decides."""
    expected = ANSWERED_BY[phase] | ({Refused} if phase != TRAINING else set())
    talk = in_phase(phase)(event)
    assert type(event) in expected or (talk.effect, talk.state.phase) == (Register(), REGISTERING)


# --- a run without trouble


def test_a_round_of_one_phase():
    talk = Talk(have=0)(Registered(0, 0, "bid", "", False))
    assert talk.effect == Train(0)
    assert talk(Proposed(skip=False, two_phase=False)).effect == SendUpload()
    assert talk(Answered(0, "accepted")).effect == Fetch(0)
    assert talk(NothingNew()).effect == Fetch(0)
    assert talk(ModelCame(1, False)).effect == Settle(True, Train(1))
    assert talk.state.pending == -1 and talk.state.have == talk.state.round == 1


@pytest.mark.parametrize("verdict, accepted", [("accepted", True), ("late", False),
                                               ("refused", False)])
def test_a_round_of_two_phases(verdict, accepted):
    talk = Talk(have=0)(Registered(0, 0, "bid", "", False), Proposed(skip=False, two_phase=True))
    assert talk.effect == SendBid()
    assert talk(Answered(0, "granted")).effect == SendUpload()
    assert talk(Answered(0, "open")).effect == Ask(0)
    assert talk(Answered(0, "open")).effect == Ask(0)
    assert talk(Answered(0, verdict)).effect == Fetch(0)
    assert talk(ModelCame(1, False)).effect == Settle(accepted, Train(1))


@pytest.mark.parametrize("two_phase", [False, True])
def test_a_silent_worker_bids_its_silence(two_phase):
    talk = Talk(have=0)(Registered(0, 0, "bid", "", False), Proposed(skip=True,
                                                                     two_phase=two_phase))
    assert talk.effect == SendBid()
    assert talk(Answered(0, "skipped"), ModelCame(1, False)).effect == Settle(False, Train(1))


def test_a_refused_bid_is_not_uploaded():
    talk = Talk(have=0)(Registered(0, 0, "bid", "", False), Proposed(False, True),
                        Answered(0, "refused"))
    assert talk.effect == Fetch(0)
    assert talk(ModelCame(1, False)).effect == Settle(False, Train(1))


def test_the_last_model_is_not_trained_on():
    talk = Talk(have=0)(Registered(0, 0, "bid", "", False), Proposed(False, False),
                        Answered(0, "accepted"), ModelCame(1, True))
    assert talk.effect == Settle(True, Fetch(1))
    talk(Refused("finish"))
    assert talk.effect == Exit(refused=False) and talk.state.phase == DONE


def test_a_model_without_a_pending_proposal_is_trained_on():
    assert in_phase(FETCHING)(ModelCame(7, False)).effect == Train(7)
    assert in_phase(FETCHING)(ModelCame(7, True)).effect == Fetch(7)


# --- an outcome and the model that follows it in one answer


@pytest.mark.parametrize("phase", [BIDDING, UPLOADING, ASKING])
@pytest.mark.parametrize("verdict, accepted", [("accepted", True), ("refused", False),
                                               ("skipped", False), ("late", False)])
@pytest.mark.parametrize("final", [False, True])
def test_a_model_that_comes_with_the_outcome_is_as_one_that_comes_after_it(
        phase, verdict, accepted, final):
    at_once = in_phase(phase)(Exchanged(3, verdict, 4, final))
    one_by_one = in_phase(phase)(Answered(3, verdict))
    assert one_by_one.effect == Fetch(3)
    one_by_one(ModelCame(4, final))
    assert (at_once.state, at_once.effect) == (one_by_one.state, one_by_one.effect)
    assert at_once.effect == Settle(accepted, Fetch(4) if final else Train(4))


def test_an_outcome_that_was_asked_for_after_a_newer_model_may_bring_a_newer_one_still():
    talk = Talk(have=5, pending=5)(Registered(5, 5, "nothing", "granted", False),
                                   ModelCame(7, False), Exchanged(5, "accepted", 9, False))
    assert talk.effect == Settle(True, Train(9)) and talk.state.have == 9


@pytest.mark.parametrize("round_, verdict, version", [(3, "open", 4), (3, "granted", 4),
                                                      (2, "accepted", 4), (3, "accepted", 3),
                                                      (3, "accepted", 2)])
def test_what_no_master_sends_in_one_answer_makes_it_register(round_, verdict, version):
    """No final outcome of the proposal, or a model that is not newer: to train on that would put
    another proposal in the place of one that was never settled.
    """
    talk = in_phase(UPLOADING)(Exchanged(round_, verdict, version, False))
    assert talk.effect == Register() and talk.state.pending == 3


# --- registering


@pytest.mark.parametrize("have, round_, owes, effect", [(0, 0, "bid", Train(0)),
                                                        (-1, 0, "bid", Fetch(-1)),
                                                        (2, 4, "bid", Fetch(2)),
                                                        (4, 4, "nothing", Fetch(4)),
                                                        (4, 4, "upload", Fetch(4))])
def test_who_holds_no_proposal_trains_on_the_open_rounds_model_or_fetches_it(
        have, round_, owes, effect):
    assert Talk(have=have)(Registered(round_, have, owes, "", False)).effect == effect


def test_a_model_that_the_master_does_not_know_is_forgotten():
    assert Talk(have=4)(Registered(4, -1, "bid", "", False)).effect == Fetch(-1)


@pytest.mark.parametrize("two_phase, skip, effect", [(False, False, SendUpload()),
                                                     (True, False, SendBid()),
                                                     (False, True, SendBid())])
def test_a_proposal_that_the_open_round_waits_for_is_sent_again(two_phase, skip, effect):
    talk = Talk(have=5, pending=5, two_phase=two_phase,
                skip=skip)(Registered(5, 5, "bid", "open", False))
    assert talk.effect == effect and talk.state.pending == 5


def test_a_grant_is_used_after_a_restart():
    assert Talk(have=5, pending=5, two_phase=True)(Registered(5, 5, "upload", "granted",
                                                              False)).effect == SendUpload()


def test_a_proposal_that_is_there_already_is_asked_for():
    talk = Talk(have=5, pending=5)(Registered(5, 5, "nothing", "open", False))
    assert talk.effect == Ask(5)
    assert talk(Answered(5, "accepted"), ModelCame(6, False)).effect == Settle(True, Train(6))


@pytest.mark.parametrize("outcome", ["skipped", "refused"])
def test_a_provisional_verdict_is_kept_until_the_model_comes(outcome):
    talk = Talk(have=5, pending=5)(Registered(5, 5, "nothing", outcome, False))
    assert talk.effect == Fetch(5) and talk.state.pending == 5
    assert talk(ModelCame(6, False)).effect == Settle(False, Train(6))


def test_a_grant_that_came_too_late_is_asked_about_before_it_is_settled():
    talk = Talk(have=5, pending=5, two_phase=True)(Registered(5, 5, "nothing", "granted", False),
                                                   ModelCame(6, False))
    assert talk.effect == Ask(5)
    assert talk(Answered(5, "late")).effect == Settle(False, Train(6))


@pytest.mark.parametrize("outcome, accepted", [("accepted", True), ("refused", False),
                                               ("skipped", False), ("late", False)])
@pytest.mark.parametrize("owes, have, then", [("bid", 6, Train(6)), ("bid", 5, Fetch(5)),
                                              ("nothing", 6, Fetch(6)), ("bid", -1, Fetch(-1))])
def test_a_proposal_of_a_closed_round_is_settled_by_its_record(outcome, accepted, owes, have, then):
    talk = Talk(have=5, pending=5)(Registered(6, have, owes, outcome, False))
    assert talk.effect == Settle(accepted, then) and talk.state.pending == -1


def test_a_proposal_of_a_round_that_the_master_lost_is_given_up():
    """A master that was restored from an older copy: its open round comes again."""
    assert Talk(have=5, pending=5)(Registered(3, -1, "bid", "open",
                                              False)).effect == Settle(False, Fetch(-1))


def test_a_proposal_from_a_model_that_the_master_does_not_know_is_given_up():
    """Sent again it would be refused again, for ever."""
    assert Talk(have=5, pending=5)(Registered(5, -1, "bid", "open",
                                              False)).effect == Settle(False, Fetch(-1))


@pytest.mark.parametrize("pending", [-1, 5])
def test_a_reset_makes_the_proposal_void(pending):
    talk = Talk(have=5, pending=pending)(Registered(5, 5, "bid", "open", True))
    assert talk.effect == Train(5) and talk.state.pending == -1


# --- verdicts that come late or twice


def test_a_newer_model_proves_the_round_and_its_verdict_is_asked_for():
    talk = Talk(have=5, pending=5)(Registered(5, 5, "nothing", "granted", False),
                                   ModelCame(7, False))
    assert talk.effect == Ask(5)
    assert talk(Answered(5, "open")).effect == Ask(5)
    assert talk(Answered(5, "accepted")).effect == Settle(True, Train(7))


@pytest.mark.parametrize("outcome, effect", [("granted", SendUpload()), ("open", Ask(5))])
def test_an_upload_that_missed_its_round_may_still_be_taken(outcome, effect):
    """late_updates apply: nothing new is proposed before it is settled."""
    talk = Talk(have=5, pending=5)(Registered(7, 5, "bid", outcome, False))
    assert talk.effect == effect
    assert talk(Answered(5, "open")).effect == Ask(5)
    assert talk(Answered(5, "granted")).effect == SendUpload()
    assert talk(Answered(5, "accepted")).effect == Fetch(5)
    assert talk(ModelCame(9, False)).effect == Settle(True, Train(9))


def test_a_silence_that_missed_its_round_is_settled():
    assert Talk(have=5, pending=5, skip=True)(Registered(7, 5, "bid", "granted",
                                                         False)).effect == Fetch(5)
    talk = Talk(have=5)(Registered(5, 5, "bid", "", False), Proposed(True, False),
                        Answered(5, "granted"))
    assert talk(ModelCame(7, False)).effect == Settle(False, Train(7))


def test_an_answer_about_another_round_is_not_taken_for_this_one():
    assert in_phase(UPLOADING)(Answered(2, "accepted")).effect == Ask(3)


def test_a_round_that_opens_anew_is_trained_on_again():
    talk = Talk(have=5)(Registered(5, 5, "bid", "", False), Proposed(True, False),
                        Answered(5, "skipped"), ModelCame(5, False))
    assert talk.effect == Train(5)
    assert talk(Proposed(False, False), Answered(5, "accepted"),
                ModelCame(6, False)).effect == Settle(True, Train(6))


# --- refusals


@pytest.mark.parametrize("phase", [REGISTERING, FETCHING, BIDDING, UPLOADING, ASKING])
def test_a_refusal_is_answered_as_its_kind_says(phase):
    again = {
        REGISTERING: Register(), FETCHING: Fetch(3), BIDDING: SendBid(), UPLOADING: SendUpload(),
        ASKING: Ask(3)
    }[phase]
    assert in_phase(phase)(Refused("retry")).effect == Retry(again)
    assert in_phase(phase)(Refused("register")).effect == Register()
    assert in_phase(phase)(Refused("finish")).effect == Exit(False)
    assert in_phase(phase)(Refused("exit")).effect == Exit(True)
    assert in_phase(phase)(
        Refused("settle")).effect == (Ask(3) if phase in (BIDDING, UPLOADING) else Retry(again))


def test_a_retry_changes_nothing():
    talk = in_phase(UPLOADING)
    before = talk.state
    assert talk(Refused("retry"), Refused("retry")).state == before


def test_nothing_happens_after_the_end():
    talk = in_phase(DONE)
    before = talk.state
    for event in EVENTS:
        assert talk(event).effect == Exit(False) and talk.state == before
