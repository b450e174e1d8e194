"""A worker whose learner is a program's own: what flq_worker.py does with the one of TensorFlow."""

from typing import Any, Dict, Optional, Sequence, Union

from flq import command_line
from flq import config as configuration
from flq.errors import ConfigError
from flq.host import log
from flq.learning import own
from flq.settings import Config
from flq.worker import process


def work(learner: Any, worker_id: int, master_url: Optional[str],
         config: Union[None, str, Dict[str, Any]], cafile: Optional[str],
         retry_for: Optional[float], **options: Any) -> int:
    """options: the other fields of process.Options that do not come from the configuration. Returns
    the exit code. Raises FlqError as process.run does, and ConfigError for what no command line
    takes either, and for a run that trains a model of FLQ's.
    """
    if not isinstance(worker_id, int) or isinstance(worker_id, bool):
        raise ConfigError("worker_id cannot take this value", "a number like 3", worker_id)
    workers = process.parse_workers(str(worker_id))
    if retry_for is not None and (isinstance(retry_for, bool)
                                  or not isinstance(retry_for, (int, float))
                                  or not command_line.is_amount(retry_for)):
        raise ConfigError("retry_for cannot take this value",
                          "a number of seconds, 0 or more, or None", retry_for)
    mine = own.OwnLearner({worker_id: learner})
    given = configuration.load(config)
    log.start(f"worker-{worker_id}", given.config.logging.log_dir,
              given.config.logging.log_level)

    def build(resolved: Config, ids: Sequence[int]) -> own.OwnLearner:
        own.require_own(resolved.model.name)
        return mine

    return process.run(
        process.Options(workers=workers, master_url=master_url or given.config.system.master_url,
                        own=given, cafile=cafile or given.config.security.cafile,
                        retry_for_s=retry_for, **options),
        build)
