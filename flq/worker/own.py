"""A worker whose learner is a program's own: what flq_worker.py does with the one of TensorFlow."""

from typing import Any, Dict, Optional, Sequence, Union

from flq import config as configuration
from flq.errors import ConfigError
from flq.host import log
from flq.learning import own
from flq.settings import Config
from flq.worker import process


def work(learner: Any, worker_id: int, master_url: Optional[str],
         config: Union[None, str, Dict[str, Any]], cafile: Optional[str], **options: Any) -> int:
    """options: the fields of process.Options that do not come from the configuration. Returns the
    exit code. Raises FlqError as process.run does, and ConfigError for a run that trains a model of
    FLQ's.
    """
    if not isinstance(worker_id, int) or isinstance(worker_id, bool):
        raise ConfigError("worker_id cannot take this value", "a number like 3", worker_id)
    workers = process.parse_workers(str(worker_id))
    mine = own.OwnLearner({worker_id: learner})
    given = configuration.load(config)
    log.start(f"worker-{worker_id}", given.config.logging.log_dir,
              given.config.logging.log_level)

    def build(resolved: Config, ids: Sequence[int]) -> own.OwnLearner:
        own.require_own(resolved.model.name)
        return mine

    return process.run(
        process.Options(workers=workers, master_url=master_url or given.config.system.master_url,
                        own=given, cafile=cafile or given.config.security.cafile, **options),
        build)
