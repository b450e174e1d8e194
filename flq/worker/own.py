"""A worker whose learner is a program's own: what flq_worker.py does with the one of TensorFlow."""

from typing import Any, Dict, NamedTuple, Optional, Sequence, Union

from flq import config as configuration
from flq.errors import ConfigError
from flq.host import log
from flq.learning import own
from flq.settings import Config
from flq.worker import process


class Place(NamedTuple):
    """The arguments of flq.worker.run behind the learner."""

    worker_id: int
    master_url: Optional[str]
    config: Union[None, str, Dict[str, Any]]
    token_file: Optional[str]
    state_dir: Optional[str]
    cafile: Optional[str]
    retry_for_s: Optional[float]
    take_over: bool


def work(learner: Any, place: Place) -> int:
    """Returns the exit code. Raises FlqError as process.run does, and ConfigError for a run that
    trains a model of FLQ's.
    """
    if not isinstance(place.worker_id, int) or isinstance(place.worker_id, bool):
        raise ConfigError("worker_id cannot take this value", "a number like 3", place.worker_id)
    workers = process.parse_workers(str(place.worker_id))
    mine = own.OwnLearner({place.worker_id: learner})
    given = configuration.load(place.config)
    log.start(f"worker-{place.worker_id}", given.config.logging.log_dir,
              given.config.logging.log_level)

    def build(config: Config, ids: Sequence[int]) -> own.OwnLearner:
        own.require_own(config.model.name)
        return mine

    options = process.Options(
        workers=workers, master_url=place.master_url or given.config.system.master_url, own=given,
        token_file=place.token_file, retry_for_s=place.retry_for_s, take_over=place.take_over,
        state_dir=place.state_dir, cafile=place.cafile or given.config.security.cafile)
    return process.run(options, build)
