"""NVFlare's FedAvg and its clients in one process: whole rounds with its controller, its messages
as bytes and FLQ's filters, and every fault that a fleet has.
"""

import copy
import os
import shutil

import numpy as np
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.apis.wf_comm_spec import WFCommSpec
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.fuel.utils import fobs

from flq.integrations.nvflare_client import STATE_FILE, ModelDecoder, UpdateEncoder
from flq.integrations.nvflare_dxo import HOLDS, RECORD
from flq.integrations.nvflare_server import ModelEncoder, UpdateDecoder
from tests.system.own_learner import LeastSquares

NAMES = ("layer.kernel", "layer.bias", "norm.running_mean")
JOB = "job"


def first_arrays():
    return dict(zip(NAMES, LeastSquares().weights()))


def over_the_wire(message):
    """As NVFlare's cells carry it."""
    return fobs.loads(fobs.dumps(message))


class Engine:
    """What filters and a controller ask of an engine."""

    def __init__(self, handlers, folder="", names=()):
        self.handlers, self.folder, self.names = handlers, folder, names
        self.panics = []

    def fire_event(self, event, fl_ctx):
        if event == EventType.FATAL_SYSTEM_ERROR:
            self.panics.append(fl_ctx.get_prop(FLContextKey.EVENT_DATA))
        fire_event_to_components(event, self.handlers, fl_ctx)

    def get_clients(self):
        return [Client(name, name) for name in self.names]

    def get_component(self, _):
        return None

    def get_workspace(self):
        return self

    def get_run_dir(self, _):
        return self.folder


class Site:
    """A client's process with FLQ's filters around a learner."""

    def __init__(self, name, learner, folder, diff=False):
        self.name, self.learner, self.diff = name, learner, diff
        self.incoming, self.outgoing = ModelDecoder(), UpdateEncoder()
        engine = Engine([self.incoming, self.outgoing], folder)
        self.contexts = FLContextManager(engine, name, JOB)
        engine.fire_event(EventType.START_RUN, self.contexts.new_context())

    def said(self):
        """The context of a request, as the server sees it."""
        peer = FLContext()
        peer.set_public_props(self.contexts.new_context().get_all_public_props())
        return peer

    def work(self, data):
        """The answer to a task."""
        fl_ctx = self.contexts.new_context()
        try:
            task = self.incoming.process(data, fl_ctx)
        except Exception:  # as NVFlare's ClientRunner
            return make_reply(ReturnCode.TASK_DATA_FILTER_ERROR)
        model = FLModelUtils.from_shareable(task)
        before = copy.deepcopy(model.params)
        weights, loss = self.learner.train(list(model.params.values()), model.current_round)
        params = {name: np.asarray(array, np.float32) for name, array in zip(before, weights)}
        if self.diff:
            params = {name: array - before[name] for name, array in params.items()}
        result = FLModelUtils.to_shareable(
            FLModel(ParamsType.DIFF if self.diff else ParamsType.FULL, params,
                    metrics={"train_loss": loss},
                    meta={"NUM_STEPS_CURRENT_ROUND": self.learner.num_samples()}))
        return self.outgoing.process(result, fl_ctx)


class Controller(FedAvg):
    """NVFlare's, keeping its last model."""

    def save_model(self, model):
        self.saved = model


class Fleet(WFCommSpec):
    """A server and its clients, site-1, site-2, ..., in the place of NVFlare's communicator.

    before(name, task data), after(name, result): a test's faults; what they return None for is
    lost. order(names): in which order they ask. dead: those that do not ask. tasks: the last one of
    each client. seen: what was sent, (name, FLQ's fields).
    """

    def __init__(self, learners, folder, config=None, diff=False, controller=Controller,
                 num_clients=None, **options):
        flare_decomposers.register()
        self.folder, self.diff, self.sites, self.seen = folder, diff, {}, []
        self.dead, self.tasks = set(), {}
        self.before = self.after = lambda name, message: message
        self.order = list
        self.encoder, self.decoder = ModelEncoder(config, **options), UpdateDecoder()
        names = [f"site-{number + 1}" for number in range(len(learners))]
        self.controller = controller(
            model=FLModel(params=first_arrays()), persistor_id="", save_filename=None,
            num_clients=num_clients or len(learners), num_rounds=1)
        self.engine = Engine([self.encoder, self.decoder, self.controller], folder, names)
        self.contexts = FLContextManager(self.engine, "server", JOB)
        self.engine.fire_event(EventType.START_RUN, self.contexts.new_context())
        self.controller.set_communicator(self)
        self.controller.abort_signal = Signal()
        self.controller.initialize(self.contexts.new_context())
        for name, learner in zip(names, learners):
            self.start(name, learner)

    @property
    def server(self):
        return self.encoder.server

    def start(self, name, learner, keep=False):
        """A client's process, or a new one in its place, which finds the old one's files or not."""
        folder = os.path.join(self.folder, name)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, exist_ok=True)
        self.sites[name] = Site(name, learner, folder, self.diff)

    def state_file(self, name):
        return os.path.join(self.folder, name, STATE_FILE)

    def play(self, rounds=1):
        """The arrays of the job's model after so many more rounds."""
        self.controller.num_rounds = rounds
        self.controller.run()
        self.controller.model = self.controller.saved
        self.controller.start_round += rounds
        return list(self.controller.saved.params.values())

    def request(self, name):
        fl_ctx = self.contexts.new_context()
        fl_ctx.set_peer_context(self.sites[name].said())
        return fl_ctx

    # --- NVFlare's communicator

    def broadcast(self, task, fl_ctx, targets, *_):
        for name in self.order(self.sites):
            if name in self.dead:
                continue
            self.engine.fire_event(EventType.BEFORE_PROCESS_TASK_REQUEST, self.request(name))
            if name in targets:
                self._serve(name, ClientTask(Client(name, name), task))

    def get_num_standing_tasks(self):
        return 0

    def _serve(self, name, client_task):
        task, fl_ctx = client_task.task, self.request(name)
        self.tasks[name] = client_task
        task.before_task_sent_cb(client_task, fl_ctx)
        data = copy.deepcopy(task.data)
        data.set_header(ReservedHeaderKey.TASK_ID, client_task.id)
        fl_ctx.set_prop(FLContextKey.FILTER_DIRECTION, FilterKey.OUT, private=True, sticky=False)
        data = self.encoder.process(data, fl_ctx)
        assert set(data["DXO"]["data"]) == {RECORD}, "no model travels down"
        self.seen.append((name, dict(data["DXO"]["data"][RECORD])))
        data = self.before(name, over_the_wire(data))
        if data is not None:
            result = self.after(name, over_the_wire(self.sites[name].work(data)))
            if result is not None:
                self.submit(name, client_task, result)

    def submission(self, name, client_task):
        """The context in which the server filters a result."""
        fl_ctx = self.request(name)
        fl_ctx.set_prop(FLContextKey.TASK_ID, client_task.id, private=True, sticky=False)
        return fl_ctx

    def submit(self, name, client_task, result):
        fl_ctx = self.submission(name, client_task)
        try:
            client_task.result = self.decoder.process(result, fl_ctx)
        except Exception:  # as NVFlare's ServerRunner
            client_task.result = make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR)
        if isinstance(client_task.result, Shareable):
            client_task.task.result_received_cb(client_task=client_task, fl_ctx=fl_ctx)


def holds(site):
    return site.contexts.new_context().get_prop(HOLDS)
