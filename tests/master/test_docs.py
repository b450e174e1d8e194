"""docs/protocol.md says what the master answers: endpoints, and the fields of its answers."""

import pytest

from flq import config
from flq.master import status
from flq.master.run.stall import Stall
from flq.master.service import Service
from flq.master.store.run_store import RunStore
from flq.parameters import params_hash
from flq.protocol.endpoints import ENDPOINTS, WORKER_PATHS
from flq.protocol.messages import REGISTERED, Registration
from tests.markdown import column, table
from tests.system.quadratic import Quadratic

PAGE = "protocol.md"


@pytest.fixture
def service(tmp_path):
    settings = config.load(None, ["total_workers=2"]).config
    learner = Quadratic(settings)
    service = Service(settings, learner, RunStore(tmp_path, {}), "run-1", lambda: (0, 0))
    yield service
    service.store.close()


@pytest.fixture
def registered(service):
    """What worker 1 is answered."""
    learner = service.learner
    return service.register(
        Registration(1, 1, "process", learner.num_samples(1), learner.partition_hash,
                     learner.layout.hash(),
                     params_hash(*learner.initial()).hex(), {}, (), False))


def test_the_table_of_endpoints_is_the_one_of_the_code():
    assert table(PAGE, "endpoints") == [[e.method, e.path, e.who, ", ".join(e.query), e.summary]
                                        for e in ENDPOINTS]


def test_the_page_names_the_endpoints_whose_bytes_count():
    workers = {
        path for _, path, who, _, _ in table(PAGE, "endpoints") if who in ("worker", "session")
    }
    assert workers == WORKER_PATHS


def test_every_field_of_a_registrations_answer_is_answered(registered):
    answer = REGISTERED.to_json(registered)
    # this model has no frozen layers
    assert column(PAGE, "registered") == list(answer) + ["constants_hash"]
    assert column(PAGE, "broadcast", 1) == list(answer["terms"])


def test_every_field_of_status_is_documented(service, registered):
    shown = status.status(service)
    assert column(PAGE, "status") == list(shown)
    assert column(PAGE, "worker status") == list(shown["worker_status"]["1"])
    assert column(PAGE, "stall") == list(Stall._fields)


def test_every_field_of_an_event_is_documented(service, registered):
    events = status.events(service)
    assert [event["event"] for event in events] == ["join"]
    assert column(PAGE, "event") == list(events[0])
