"""Worker machines and a round machine in one simulated world: a clock, a network that loses things, and crashes.

The master is the service in miniature: what its store holds survives a crash, sessions and answers do not. A worker's state
file survives its crash unless the file is lost too. Chains are written out: (epoch, committed rounds) stands for the hash.
"""

import heapq
import itertools

from flq.protocol import round_machine as rounds
from flq.protocol import worker_machine as workers
from flq.protocol.round_events import (
    Aggregate,
    Asked,
    BidCame,
    Joined,
    LeftOut,
    Resumed,
    RoundClosed,
    RoundFailed,
    Seen,
    Select,
    Selected,
    StoreFull,
    Tick,
    UploadCame,
)
from flq.records import Bid, Option

PATIENCE_S = 12.0   # until a worker gives a request up
POLL_S = 4.0        # how long the master lets one wait
HEARTBEAT_S = 10.0  # while a worker trains
OPTION = Option(4, 100, 1.0)


class Refusal(Exception):
    """The master says no; action is the worker's."""

    def __init__(self, action):
        super().__init__(action)
        self.action = action


class World(object):
    """The clock and the network. Trouble ends at `calm_at`, so that what is still wrong afterwards is wrong for ever."""

    def __init__(self, dice, loss, calm_at):
        self.now, self.dice, self.loss, self.calm_at = 0.0, dice, loss, calm_at
        self._queue, self._order = [], itertools.count()

    def later(self, seconds, action):
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), action))

    def run(self, over, most=50000):
        for _ in range(most):
            if over():
                return
            assert self._queue, "nothing will ever happen again"
            self.now, _, action = heapq.heappop(self._queue)
            action()
        raise AssertionError("the run does not end")

    def trouble(self, part=1.0):
        return self.now < self.calm_at and self.dice.random() < self.loss * part

    def send(self, ask, wait, answered):
        """ask() -> an answer, or None to be asked again; it is asked until `wait` has passed. answered(answer), if it ever arrives.

        Requests and answers may be lost or late, and a request may arrive twice.
        """
        def arrive(until):
            try:
                answer = ask(self.now >= until)
            except Refusal as refusal:
                answer = workers.Refused(refusal.action)
            if answer is None:
                self.later(1.0, lambda: arrive(until))
            elif not self.trouble():
                self.later(self._delay(), lambda: answered(answer))

        for _ in range(2 if self.trouble() else 1):
            if not self.trouble():
                delay = self._delay()
                self.later(delay, lambda delay=delay: arrive(self.now + wait))

    def _delay(self):
        return self.dice.choice([0.01, 0.1, 1.0]) * (1.0 + self.dice.random()) * (20.0 if self.trouble(0.2) else 1.0)


class Master(object):
    """The service in miniature. records: what its store holds, {worker: state} for each closed round.

    applied: {(worker, round): the later round that committed its late upload}, stored too. apply_late: whether there are any.
    """

    def __init__(self, world, settings, apply_late=False):
        self.world, self.settings, self.apply_late = world, settings, apply_late
        self.records, self.chains, self.resets, self.applied, self.left_out = [], {}, 0, {}, 0
        self.boots, self._numbers = 0, itertools.count()
        self.boot()

    def boot(self):
        """A new process on the old store."""
        self.boots += 1
        self.state = rounds.initial_state(self.settings, self.world.now, len(self.records))
        self.sessions, self.holders, self.departing, self.uploads = {}, {}, set(), {}
        self._wake()

    def crash(self):
        if self.state.phase != rounds.FINISHED:
            self.boot()

    @property
    def finished(self):
        return self.state.phase == rounds.FINISHED

    # what workers ask for; each returns an event of the worker machine, or raises Refusal

    def register(self, worker, instance, have, chain, pending):
        if self.finished:
            raise Refusal("finish")
        old = self.holders.get(worker)
        if old is not None and self.sessions.pop(old)[1] != instance:
            self.sessions[old] = None  # another process takes over: the old one must end
        session = (self.boots, next(self._numbers))
        self.holders[worker], self.sessions[session] = session, (worker, instance)
        keep = self.chain(worker) in (chain, commit(chain, pending))
        if not keep:
            self.resets += 1
            self.departing.add(worker)
        fresh = not keep or (pending < 0 and have <= len(self.records))
        if fresh and self.state.phase in rounds.ANSWERING:
            self.uploads.pop(worker, None)
        self.step(Joined(worker, fresh))
        outcome = "" if pending < 0 else self.outcome_of(worker, pending)
        held = have if 0 <= have <= len(self.records) else -1
        registered = workers.Registered(self.state.round, held, rounds.owes(self.state, worker), outcome, not keep)
        return session, registered, self.chain(worker)

    def fetch(self, session, have, last):
        worker = self.enter(session)
        if self.finished and have == len(self.records):
            raise Refusal("finish")
        if self.finished or rounds.owes(self.state, worker) == "bid":
            return workers.ModelCame(len(self.records), self.finished)
        return workers.NothingNew() if last else None

    def bid(self, session, bid, last):
        worker = self.enter(session)
        self.check_round(worker, bid.round)
        self.step(BidCame(bid))
        return self.answer(worker, bid.round, last)

    def upload(self, session, bid, chain, last):
        worker = self.enter(session)
        if bid.round == len(self.records) and chain != self.chain(worker):
            raise Refusal("register")
        if bid.round < len(self.records) and self.outcome_of(worker, bid.round) == "granted":
            if chain != self.chain(worker):
                raise Refusal("register")
            self.uploads[worker] = commit(chain, bid.round)
            self.step(UploadCame(bid._replace(round=self.state.round)))
            return self.answer(worker, bid.round, last)
        self.check_round(worker, bid.round)
        if bid.round == self.state.round and self.state.phase in rounds.ANSWERING:
            if self.state.two_phase and worker not in (self.state.granted or {}):
                raise Refusal("settle")
            self.uploads[worker] = commit(chain, bid.round)
            self.step(UploadCame(bid))
        return self.answer(worker, bid.round, last)

    def outcome(self, session, round_, last):
        worker = self.enter(session)
        if round_ > self.state.round:
            raise Refusal("settle")
        if round_ == self.state.round and rounds.owes(self.state, worker) == "bid":
            raise Refusal("register")
        return self.answer(worker, round_, last)

    def enter(self, session):
        if self.sessions.get(session, ()) is None:
            raise Refusal("exit")
        if session not in self.sessions:
            raise Refusal("register")
        worker, _ = self.sessions[session]
        self.step(Asked(worker))
        return worker

    def heartbeat(self, session):
        if self.sessions.get(session) is not None:
            self.step(Seen(self.sessions[session][0]))

    def check_round(self, worker, round_):
        if round_ > self.state.round:
            raise Refusal("settle")
        if round_ == self.state.round and self.state.phase in rounds.ANSWERING and not rounds.may_answer(self.state, worker):
            raise Refusal("register")

    def answer(self, worker, round_, last):
        state = self.outcome_of(worker, round_)
        if state == "open" and self.finished:
            raise Refusal("finish")
        return workers.Answered(round_, state) if last or state != "open" else None

    def outcome_of(self, worker, round_):
        if round_ >= len(self.records):
            state = rounds.answer_state(self.state, worker)
            return "open" if state == "none" else state
        state = self.records[round_].get(worker, "missing")
        if state != "missing" and round_ not in [self.applied[key] for key in self.applied if key[0] == worker]:
            return state
        return self.late_outcome(worker, round_) if self.apply_late else "late"

    def late_outcome(self, worker, round_):
        """What is said of an upload that is not in its round."""
        if (worker, round_) in self.applied:
            return "accepted"
        last = max((k for k, record in enumerate(self.records) if record.get(worker) == "accepted"), default=-1)
        if self.finished or worker in self.state.removed or last >= round_ and worker not in self.departing:
            return "late"
        if worker in self.state.uploaded:
            return "open" if self.uploads[worker][1][-1] == round_ else "late"
        if rounds.owes(self.state, worker) == "bid":
            return "granted"
        return "late" if rounds.answer_state(self.state, worker) != "none" else "open"

    def chain(self, worker):
        epoch, committed = self.chains.get(worker, (0, ()))
        return (epoch + 1, ()) if worker in self.departing else (epoch, committed)

    # the driver

    def step(self, event):
        self.state, effects = rounds.step(self.state, event, self.world.now)
        for effect in effects:
            if isinstance(effect, Select):
                granted = [bid.worker for bid in effect.bids if self.world.dice.random() < 0.6] or [effect.bids[0].worker]
                self.step(Selected(dict.fromkeys(granted, OPTION)))
            elif isinstance(effect, LeftOut):
                self.left_out += 1
            elif isinstance(effect, Aggregate):
                self.world.later(0.3, lambda effect=effect, boot=self.boots: self._close(effect, boot))
        self._wake()

    def _wake(self):
        wake = rounds.next_wake(self.state)
        if wake is not None:
            self.world.later(max(0.0, wake - self.world.now), lambda state=self.state: self.state is state and self.step(Tick()))

    def _close(self, effect, boot):
        if boot != self.boots:
            return
        if self.world.trouble(0.3):
            self.step(StoreFull("no room"))
        elif self.world.trouble(0.1):
            self.step(RoundFailed("not finite"))
            self.world.later(3.0, lambda: self.boots == boot and self.step(Resumed()))
        else:
            self._commit(effect)

    def _commit(self, effect):
        departing = set(self.departing)
        chains = {worker: self.chain(worker) for worker in set(self.chains) | departing}
        chains.update((worker, self.uploads[worker]) for worker in effect.selected)
        groups = (("accepted", effect.selected), ("skipped", effect.skipped), ("refused", effect.refused), ("missing", effect.missing))
        for worker in effect.selected:
            computed_in = self.uploads[worker][1][-1]
            assert (worker, computed_in) not in self.applied, "an upload is committed once"
            if computed_in != effect.round:
                self.applied[worker, computed_in] = effect.round
        self.records.append({worker: name for name, members in groups for worker in members})
        self.chains, self.departing, self.uploads = chains, set(), {}
        self.step(RoundClosed(self.settings.two_phase))


class Worker(object):
    """A worker machine and what its effects do. The state file is (have, chain, pending, skip)."""

    def __init__(self, world, master, worker):
        self.world, self.master, self.worker = world, master, worker
        self.file, self.settled, self.exits, self.lives = (0, (0, ()), -1, False), [], [], 0
        self.instance = self.lost = 0
        self.boot()

    def boot(self, delay=0.0):
        self.lives += 1
        self.have, self.chain, self.pending, self.skip = self.file
        self.session, self.request = None, 0
        self.state = workers.initial_state(self.have, self.pending, self.master.settings.two_phase, self.skip)
        self._after(delay, lambda: self.do(workers.start()))

    def crash(self, lose_file):
        if self.exits:
            return
        if lose_file:
            self.lost += 1
            self.instance += 1
            self.file = (-1, (0, ()), -1, False)
        self.boot(self.world.dice.random() * 40.0)

    def _after(self, seconds, action):
        life = self.lives
        self.world.later(seconds, lambda: life == self.lives and action())

    def step(self, event):
        self.state, effect = workers.step(self.state, event)
        self.do(effect)

    def do(self, effect):
        dice, master, session = self.world.dice, self.master, self.session  # what is sent keeps the session that it was sent with
        if isinstance(effect, workers.Exit):
            self.exits.append(effect)
        elif isinstance(effect, workers.Retry):
            self._after(dice.random(), lambda: self.do(effect.again))
        elif isinstance(effect, workers.Settle):
            assert self.pending >= 0
            self.settled.append((self.pending, effect.accepted))
            self.chain, self.pending = commit(self.chain, self.pending) if effect.accepted else self.chain, -1
            self.do(effect.then)
        elif isinstance(effect, workers.Train):
            assert effect.round == self.have, "a round is trained on its own model"
            # Some steps hang for longer than several rounds; the process is there all the while.
            longest = 300.0 if self.world.trouble(0.1) else 30.0 if self.world.trouble(0.3) else 1.0
            self._train(effect.round, self.world.now + 0.5 + dice.random() * longest)
        elif isinstance(effect, workers.Register):
            self._ask(self._register, 0.0)
        elif isinstance(effect, workers.Fetch):
            self._ask(lambda last, have=self.have: master.fetch(session, have, last), POLL_S)
        elif isinstance(effect, workers.SendBid):
            bid = self._bid()
            self._ask(lambda last: master.bid(session, bid, last), POLL_S)
        elif isinstance(effect, workers.SendUpload):
            bid, chain = self._bid(), self.chain
            self._ask(lambda last: master.upload(session, bid, chain, last), POLL_S)
        else:
            assert effect.round == self.pending
            self._ask(lambda last: master.outcome(session, effect.round, last), POLL_S)

    def _register(self, last):
        # What it holds when it arrives: a registration whose sender has gone meanwhile is not served, as its connection is closed.
        return self.master.register(self.worker, self.instance, self.have, self.chain, self.pending)

    def _bid(self):
        return Bid(self.worker, self.pending, self.skip, "lazy" if self.skip else "", () if self.skip else (OPTION,), 1.0, 0.0)

    def _train(self, round_, until):
        if until - self.world.now <= HEARTBEAT_S:
            self._after(until - self.world.now, lambda: self._proposed(round_))
            return
        if not self.world.trouble():
            self.master.heartbeat(self.session)
        self._after(HEARTBEAT_S, lambda: self._train(round_, until))

    def _proposed(self, round_):
        # Drawn for the round, not for the try: who trains on a round again proposes the same.
        self.pending, self.skip = round_, (7 * self.worker + 3 * round_) % 5 == 0
        self.file = (self.have, self.chain, self.pending, self.skip)
        self.step(workers.Proposed(self.skip, self.master.settings.two_phase))

    def _ask(self, ask, wait):
        self.request += 1
        life, number = self.lives, self.request

        def current():
            return life == self.lives and number == self.request

        def answered(answer):
            if current():
                self.request += 1
                self._answered(answer)

        self.world.send(ask, wait, answered)
        self.world.later(PATIENCE_S + wait, lambda: answered(workers.Refused("retry")))

    def _answered(self, answer):
        if isinstance(answer, tuple) and len(answer) == 3 and isinstance(answer[1], workers.Registered):
            self.session, answer, chain = answer
            self.have = answer.have
            if answer.reset:
                self.chain, self.pending = chain, -1
        elif isinstance(answer, workers.ModelCame):
            self.have = answer.version
        self.step(answer)


def commit(chain, round_):
    """The chain after a round was accepted."""
    return chain[0], chain[1] + (round_,)
