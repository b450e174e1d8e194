"""A run and its workers in one simulated world: a clock, a network that loses things, an operator,
and crashes.

Both sides are the real ones. The master's is a Run that is moved as the service moves it, with
events of the world in place of threads and waiting; its store is a database in memory, which
survives a crash of the master. A worker's is the loop's Worker, whose client sends what it is asked
for into the world; its state file survives its crash unless the file is lost too.
"""

import contextlib
import functools
import heapq
import itertools
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Callable, NamedTuple, Union

import numpy as np

from flq import config as configuration
from flq.algorithm import uplink
from flq.algorithm.round import NonFiniteError
from flq.errors import ProtocolError, UnreachableError
from flq.master.process import run_meta
from flq.master.run.opening import recover
from flq.master.run.recovery import pack_checkpoint
from flq.master.run.run import PENDING, Keep, Question, Wake, is_tested
from flq.master.store.events import KeyChange, Pause, Remove, Resume, changed_keys
from flq.master.store.run_store import RunStore, StoredRows, StoreError
from flq.parameters import Layout
from flq.protocol import frames, messages
from flq.protocol import round_machine as rounds
from flq.protocol import worker_machine as workers
from flq.protocol.frames import UPLOAD_KIND
from flq.records import LocalResult, Outcome
from flq.worker.loop import Worker as Process
from flq.worker.state_file import InMemory
from flq.worker.worker_record import RecordCoding, follows, origin_of
from tests.system.quadratic import Quadratic
from tests.worker.same_record import same

RUN_ID = "storm"
PATIENCE_S = 12.0   # until a worker gives a request up
HEARTBEAT_S = 10.0  # while a worker trains
PLACES = ("due", "closing", "stored", "blocked", "events")
"""Where it may be the wrong moment: a round has its answers; its result is computed but not stored;
it is stored but not adopted; the disk has no room for it; an operator's request is stored but not
answered."""


class Tiny(Quadratic):
    """The quadratic with 8 weights and one other value."""

    def __init__(self, settings):
        super().__init__(settings)
        self.layout = Layout(((2, 3), (2,)), ((1,),))

    def local_update(self, params, non_trainable, worker, round_):
        """One step, without the parent's pause, for thousands of worlds."""
        noise = 0.05 * np.sin(np.arange(params.size) + 3 * worker + 7 * round_)
        update = params - self._target(worker) + noise.astype(np.float32)
        return LocalResult(update, non_trainable + np.float32(worker + 1),
                           float(np.square(update).mean()), 1)


class World:
    """The clock and the network.

    Trouble ends at `calm_at`, so that what is still wrong afterwards is wrong for ever.
    """

    def __init__(self, dice, loss, calm_at):
        self.now, self.dice, self.loss, self.calm_at = 0.0, dice, loss, calm_at
        self._queue, self._order = [], itertools.count()

    def later(self, seconds, action):
        self.at(self.now + seconds, action)

    def at(self, moment, action):
        heapq.heappush(self._queue, (moment, next(self._order), action))

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

    def send(self, serve, answered):
        """serve(reply) when the request arrives; answered(answer) when what was given to reply()
        does.

        Requests and answers may be lost or late, and a request may arrive twice.
        """
        def reply(answer):
            if not self.trouble():
                self.later(self._delay(), lambda: answered(answer))

        for _ in range(2 if self.trouble() else 1):
            if not self.trouble():
                self.later(self._delay(), lambda: serve(reply))

    def _delay(self):
        return self.dice.choice(
            [0.01, 0.1, 1.0]) * (1.0 + self.dice.random()) * (20.0 if self.trouble(0.2) else 1.0)


class Store(RunStore):
    """A new store in memory, whose disk has no room now and then, and none for a round while it is
    `full`.
    """

    def __init__(self, meta, world):
        StoredRows.__init__(self)
        self.path, self._process_lock, self._world, self.full = Path("run.db"), None, world, False
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        _empty_store(json.dumps(meta)).backup(self._db)

    def __del__(self):
        self._db.close()  # a world just ends, in whichever thread collects it

    def commit_round(self, commit):
        if self.full:
            raise StoreError("no room")
        self._need_room(0.3)
        super().commit_round(commit)

    def add_events(self, round_, events):
        self._need_room(0.3)
        super().add_events(round_, events)

    def add_evaluation(self, round_, result):
        self._need_room(0.1)
        super().add_evaluation(round_, result)

    def _need_room(self, part):
        if self._world.trouble(part):
            raise StoreError("no room")


@functools.lru_cache(maxsize=None)
def _empty_store(meta):
    """The database of a new store."""
    empty = sqlite3.connect(":memory:", isolation_level=None)
    with tempfile.TemporaryDirectory() as directory:
        store = RunStore(Path(directory), json.loads(meta))
        store._db.backup(empty)
        store.close()
    return empty


class Waiting(NamedTuple):
    """A request that waits for what it wants to hear."""

    question: Question
    until: float
    reply: Callable[[Any], None]


class Told(NamedTuple):
    """What an operator's request stored, in the order in which it was stored. round: from which it
    counts.
    """

    round: int
    event: Union[KeyChange, Remove]


class Master:
    """Moves a Run as the service does. schedule: {round: events}: what an operator does the moment
    that round opens.

    deaths: the PLACES where it died.
    """

    def __init__(self, world, config, schedule=None):
        self.world, self.config, self.learner = world, config, Tiny(config)
        self.schedule = schedule or {}
        self.store = Store(run_meta(RUN_ID, config, self.learner), world)
        self.boots = self.left_out = self.checkpoints = 0
        self.told, self.deaths = [], []
        self._plans = {place: [] for place in PLACES}
        self.boot()

    # processes

    def boot(self):
        """A new process on the old store."""
        self.boots += 1
        self.tokens, self._waiting, self._due, self._is_closing, self._alarm = set(
        ), [], [], False, 0
        opened = recover(self.config, self.learner, self.store, RUN_ID, None, self.world.now)
        self.run, self._closer = opened.run, opened.closer
        for round_, model in sorted(opened.untested.items()):
            self._test(round_, model)
        self._open()
        orders = [told.event for told in self.told if isinstance(told.event, (Pause, Resume))]
        assert self.run.state.paused == (orders[-1:] == [Pause()] and not self.run.is_over)
        if self.run.state.paused:
            self._after(3.0, self.resume)
        self._act()
        self._set_alarm()

    def crash(self):
        cut = self._waiting
        self.boot()
        for waiting in cut:
            waiting.reply(UnreachableError("the master is gone"))

    def plan(self, place, action):
        """What happens when the master is at that place next."""
        self._plans[place].append(action)

    def _reach(self, place):
        """False where the master dies there."""
        boot, actions, self._plans[place] = self.boots, self._plans[place], []
        for action in actions:
            action()
        if boot != self.boots:
            self.deaths.append(place)
        return boot == self.boots

    def _after(self, seconds, action):
        boot = self.boots
        self.world.later(seconds, lambda: boot == self.boots and action())

    @property
    def finished(self):
        return self.run.is_over and not self.run.untested

    # workers' requests

    def serve(self, request, reply):
        """request: (what, credential, arguments) as a worker's client was asked for it."""
        what, credential, arguments = request
        now, run = self.world.now, self.run
        if what == "register":
            self._take(lambda: self._register(*arguments), 0.0, reply)
        elif what == "fetch_model":
            held, wait_s = arguments
            self._take(lambda: run.fetch(credential, held, now), wait_s, reply)
        elif what == "bid":
            bid, held, wait_s = arguments
            self._take(lambda: run.bid(credential, as_json(messages.BID, bid), now, held), wait_s,
                       reply)
        elif what == "upload":
            self._upload(credential, *arguments, reply=reply)
        else:
            round_, held, wait_s = arguments
            self._take(lambda: run.outcome(credential, round_, now, held), wait_s, reply)

    def _register(self, registration):
        answer = self.run.register(
            messages.REGISTRATION.parse(as_json(messages.REGISTRATION, registration)),
            self.world.now)
        self.tokens.add(answer.session)
        return answer

    def _upload(self, token, data, held, wait_s, reply):
        """In three steps, as the service does it: others get in between."""
        def arrived():
            session = self.run.enter(token, self.world.now)
            head = frames.unpack_only_head(data, UPLOAD_KIND, self.run.expected)
            self._pause(lambda: self._take(lambda: read(session, head), wait_s, reply))

        def read(session, head):
            basis = self.run.begin_upload(session, head)
            received = self.run.check_upload(basis, head, data)
            self._pause(lambda: self._take(
                lambda: self.run.upload(basis, received, self.world.now, held), wait_s, reply))

        self._take(arrived, wait_s, reply)

    def _pause(self, action):
        self._after(self.world.dice.choice([0.0, 0.0, 0.1]), action)

    def _take(self, ask, wait_s, reply):
        """ask() -> the answer, a Question that waits for it, or None when it goes on later."""
        try:
            found = ask()
        except ProtocolError as error:
            reply(error)
        else:
            if isinstance(found, Question):
                waiting = Waiting(found, self.world.now + wait_s, reply)
                self._waiting.append(waiting)
                self._ask([waiting])
                self._after(wait_s, lambda: self._ask([waiting]))
            elif found is not None:
                reply(as_sent(found))
        self._act()

    def _ask(self, some):
        """Ask again for some of the requests that wait."""
        for waiting in some:
            if waiting not in self._waiting:
                continue
            now = self.world.now
            try:
                found = self.run.answer(waiting.question, now, last=now >= waiting.until)
            except ProtocolError as error:
                found = error
            if found is not PENDING:
                self._waiting.remove(waiting)
                waiting.reply(as_sent(found))
        self._act()

    def heartbeat(self, token):
        with contextlib.suppress(ProtocolError):  # its next request will hear it
            self.run.heartbeat(token, None, self.world.now)
        self._act()

    def leave(self, token):
        with contextlib.suppress(ProtocolError):  # it is not known any more
            self.run.leave(token, self.world.now)
        self._act()

    # operators' requests

    def change(self, changes):
        def make():
            change = self.run.plan_change(changes, "storm")
            if self._stores(change.effective_round + 1, change.again) and self._stores(
                    change.effective_round, change.events):
                self.run.change(change, self.world.now)

        self._operate(make)

    def remove(self, worker):
        def make():
            if self._stores(*self.run.plan_removal(worker)):
                self.run.remove(worker, self.world.now)

        self._operate(make)

    def pause(self, seconds):
        def make():
            if self._stores(*self.run.plan_pause(True)):
                self.run.pause(self.world.now)
                self._after(seconds, self.resume)

        self._operate(make)

    def resume(self):
        def make():
            if self._stores(*self.run.plan_pause(False)):
                self.run.resume(self.world.now)

        try:
            make()
        except StoreError:  # no room: nothing was changed
            self._after(2.0, self.resume)
        self._act()

    def _operate(self, make):
        with contextlib.suppress(ProtocolError, StoreError):  # nothing was changed
            make()
        self._act()

    def _stores(self, round_, events):
        """False when the master died after it had stored them."""
        if events:
            self.store.add_events(round_, events)
            self.told.extend(Told(round_, event) for event in events)
        return not events or self._reach("events")

    @property
    def removed(self):
        return {told.event.worker for told in self.told if isinstance(told.event, Remove)}

    def in_force(self, round_):
        """What operators set: {key: value} of that round, the newest word on each key."""
        return changed_keys(told.event for told in self.told if told.round <= round_)

    def _open(self):
        """A round opens, in this process for the first time: what operators were told is in force.
        """
        run, flat = self.run, configuration.flat(self.run.config)
        assert self.removed <= run.state.removed
        if not self._is_closing and not run.is_over:
            for key, value in self.in_force(run.next_to_close).items():
                assert flat[
                    key] == value, f"round {run.next_to_close}: {key} is {flat[key]}, not {value}"
        for event in self.schedule.pop(run.next_to_close, ()):
            if isinstance(event, KeyChange):
                self.change({event.key: event.new})
            else:
                self.remove(event.worker)

    # the driver

    def _act(self):
        """Do what the run asks for."""
        for effect in self.run.take_effects():
            if isinstance(effect, Keep):
                with contextlib.suppress(StoreError):
                    so_far, changed = self.run.so_far()
                    self.store.add_ending(so_far, changed)
                    self.run.ended(so_far, changed)
                continue
            if not isinstance(effect, Wake):
                self._due.append(effect)
                self._after(0.0, self._close)
                continue
            if effect.driver:
                self._set_alarm()
            if effect.requests and self._waiting:
                self._after(0.0, lambda: self._ask(list(self._waiting)))

    def _set_alarm(self):
        self._alarm += 1
        alarm, wake = self._alarm, self.run.next_wake()
        if wake is not None:
            boot = self.boots
            self.world.at(max(wake, self.world.now), lambda: (boot, alarm) ==
                          (self.boots, self._alarm) and self._ring())

    def _ring(self):
        self.run.tick(self.world.now)
        self._act()
        self._set_alarm()

    def _close(self):
        if self._is_closing or not self._due or not self._reach("due"):
            return
        self._is_closing = True
        opened, measured = self.run.begin_closing(self._due.pop(0), self.world.now, self.world.now)
        self._act()
        self._after(0.3, lambda: self._commit(opened, measured))

    def _commit(self, opened, measured):
        if not self._reach("closing"):
            return
        self.store.full = bool(self._plans["blocked"])
        try:
            if self.world.trouble(0.1):
                raise NonFiniteError("not finite")
            stored = self._closer.close(opened, measured)
        except NonFiniteError as error:
            message = str(error)
            self._closed(lambda: self.run.fail(message, self.world.now))
            self._after(3.0, self.resume)
        except StoreError as error:
            message = str(error)
            self._closed(lambda: self.run.store_full(message, self.world.now))
            self._reach("blocked")
        else:
            if self._reach("stored"):
                self._after(self.world.dice.choice([0.0, 0.1, 0.5]),
                            lambda: self._closed(lambda: self._adopt(stored, measured)))

    def _closed(self, end):
        self._is_closing = False
        end()
        self._act()

    def _adopt(self, stored, measured):
        run, before = self.run, self._are_left_out()
        run.adopt(stored, measured, self.world.now)
        self.left_out += len(self._are_left_out() - before)
        self._open()
        if self.world.trouble(0.3):
            self.checkpoints += 1
            self.store.add_checkpoint(stored.model.version, *pack_checkpoint(stored.model))
        if is_tested(run.config, stored.record) or run.is_over:
            self._test(stored.record.round, stored.model)
        else:
            run.tested(stored.record.round, None)

    def _are_left_out(self):
        return {
            worker for worker in self.run.state.silent
            if rounds.is_left_out(self.run.state, worker)
        }

    def _test(self, round_, model):
        """Test a model, until the result is stored."""
        def test():
            result = self.learner.evaluate(*model.result)
            try:
                self.store.add_evaluation(round_, result)
            except StoreError:
                self._test(round_, model)
            else:
                self.run.tested(round_, result)
                self._act()

        self._after(self.world.dice.choice([0.1, 1.0, 5.0]), test)


class Sent(Exception):
    """The client was asked for something, and the world has to bring it to the master first."""

    def __init__(self, request):
        super().__init__(request)
        self.request = request


class Line:
    """What HttpClient is over HTTP, in two steps: the first time that it is asked it raises Sent,
    and with `answer` set it answers. is_old: of a worker, or to a master, that gives no model with
    an outcome.
    """

    def __init__(self, is_old=False):
        self.answer = self._credential = self._sent = None
        self._is_old = is_old

    def authorize(self, credential):
        self._credential = credential

    def _call(self, *request):
        answer, self.answer = self.answer, None
        if answer is None:
            self._sent = request
            raise Sent(request)
        assert request == self._sent, "what is answered is what was asked"
        if isinstance(answer, Exception):
            raise answer
        return answer[0]

    def register(self, registration):
        return self._call("register", self._credential, (registration,))

    def fetch_model(self, held, wait_s):
        return self._call("fetch_model", self._credential, (held, wait_s))

    def bid(self, bid, wait_s, held):
        return self._exchange("bid", bid, held, wait_s)

    def upload(self, frame, wait_s, held):
        return self._exchange("upload", frame, held, wait_s)

    def outcome(self, round_, wait_s, held):
        return self._exchange("outcome", round_, held, wait_s)

    def _exchange(self, what, sent, held, wait_s):
        return self._call(what, self._credential, (sent, None if self._is_old else held, wait_s))


class Disk(InMemory):
    """A worker's state file as records that were read from what is written: all of it, or a step
    behind what was there.
    """

    def __init__(self, master):
        super().__init__()
        layout = master.learner.layout
        self._coding = RecordCoding(layout, uplink.settings_from(master.config, layout))

    def save(self, record, broadcasts=None):
        before = self.load()
        if before is not None and broadcasts is not None and follows(origin_of(before), record):
            step = b"".join(map(bytes, self._coding.to_step(record, broadcasts)))
            super().save(self._coding.follow(before, step))
        else:
            whole = b"".join(map(bytes, self._coding.to_chunks(record)))
            super().save(self._coding.from_bytes(whole))
        assert same(self.load(), record)


class Worker:
    """One worker id, its processes and its state file. settled: (round, accepted) of each verdict
    that it took over.
    """

    def __init__(self, world, master, worker):
        self.world, self.master, self.worker = world, master, worker
        self.file, self.settled, self.exits = Disk(master), [], []
        self.lives = self.lost = self.left = self._request = 0
        self.process = self._state = None
        self._boot()

    def _boot(self, delay=0.0):
        self.lives += 1
        self._after(delay, self._start)

    def _start(self):
        master = self.master
        self._line = Line(is_old=self.world.dice.random() < 0.3)
        process = Process(self.worker, self._line, master.learner, master.config, RUN_ID, self.file,
                          lambda: "", self.lost > 0)
        if not process._is_saved:
            process._save()
        pending, skip = (-1, False) if process._proposal is None else (process._proposal.round,
                                                                       process._proposal.skip)
        self.process, self._state = process, workers.initial_state(process._version, pending,
                                                                   process._two_phase, skip)
        self._do(workers.start())

    def crash(self, lose_file):
        if self.exits:
            return
        if lose_file:
            self.lost += 1
            self.file = Disk(self.master)
        self._boot(self.world.dice.random() * 40.0)

    def leave(self):
        """It ends with a goodbye, and is started again later."""
        if self.exits or self.process is None:
            return
        self.left += 1
        if not self.world.trouble():
            self.master.leave(self.process.session)
        self._boot(self.world.dice.random() * 40.0)

    @property
    def futures(self):
        """What its uplink is, and with an unsettled proposal what it may become."""
        proposal = self.process._proposal
        return [self.process._uplink] + ([proposal.committed] if proposal is not None else [])

    def _after(self, seconds, action):
        life = self.lives
        self.world.later(seconds, lambda: life == self.lives and action())

    def _perform(self, effect):
        self._state, then = workers.step(self._state, self.process._perform(effect))
        self._do(then)

    def _do(self, effect):
        if isinstance(effect, workers.Exit):
            self.exits.append(effect)
        elif isinstance(effect, workers.Retry):
            self._after(self.world.dice.random(), lambda: self._do(effect.again))
        elif isinstance(effect, workers.Settle):
            self.settled.append((self.process._proposal.round, effect.accepted))
            self.process._settle(effect.accepted)
            self._do(effect.then)
        elif isinstance(effect, workers.Train):
            assert effect.round == self.process._version, "a round is trained on its own model"
            # Some steps hang for longer than several rounds; the process is there all the while.
            longest = 300.0 if self.world.trouble(0.1) else 30.0 if self.world.trouble(0.3) else 1.0
            self._train(effect, self.world.now + 0.5 + self.world.dice.random() * longest)
        else:
            self._ask(effect)

    def _train(self, effect, until):
        if until - self.world.now <= HEARTBEAT_S:
            self._after(until - self.world.now, lambda: self._perform(effect))
            return
        if not self.world.trouble():
            self.master.heartbeat(self.process.session)
        self._after(HEARTBEAT_S, lambda: self._train(effect, until))

    def _ask(self, effect):
        self._request += 1
        life, number = self.lives, self._request
        request = self._asked(effect)
        wait_s = 0.0 if isinstance(effect, workers.Register) else request[2][-1]

        def current():
            return life == self.lives and number == self._request

        def answered(answer):
            if current():
                self._request += 1
                self._line.answer = answer if isinstance(answer, Exception) else (answer,)
                self._perform(effect)

        def serve(reply):
            if not isinstance(effect, workers.Register):
                self.master.serve(request, reply)
            # the connection of a process that is gone is closed
            elif life == self.lives and not self.exits:
                self.master.serve(self._registration(), reply)

        self.world.send(serve, answered)
        self.world.later(PATIENCE_S + wait_s, lambda: answered(UnreachableError("no answer")))

    def _asked(self, effect):
        """What the process sends for this effect."""
        try:
            self.process._perform(effect)
        except Sent as sent_:
            return sent_.request
        raise AssertionError(f"{effect} sends nothing")

    def _registration(self):
        """What it holds when it arrives: who has gone on meanwhile has closed that connection."""
        line, self.process._client = self._line, Line()
        try:
            return self._asked(workers.Register())
        finally:
            self.process._client = line


def as_json(message, record):
    """A message as it arrives."""
    return json.loads(messages.to_json(message.to_json(record)))


def as_sent(answer):
    """The master's answer as the worker's client gives it."""
    if isinstance(answer, (bytes, Exception)) or answer is None:
        return answer
    if isinstance(answer, Outcome):
        return messages.OUTCOME.parse(as_json(messages.OUTCOME, answer), frames=answer.frames)
    return messages.REGISTERED.parse(as_json(messages.REGISTERED, answer))
