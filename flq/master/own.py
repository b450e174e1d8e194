"""A master whose learner is a program's own: what flq_master.py does with the one of TensorFlow."""

from __future__ import annotations

from typing import Any

from flq import command_line
from flq import config as configuration
from flq.errors import ConfigError
from flq.host import log
from flq.learning import own
from flq.master import process


def serve(learner: Any, config: str | dict[str, Any] | None, keywords: dict[str, Any],
          **options: Any) -> int:
    """options: the fields of process.Options that do not come from the configuration. Returns the
    exit code. Raises FlqError as process.run does.
    """
    command_line.need_python(3, 9)
    if options["keyfile"] and not options["certfile"]:
        raise ConfigError("keyfile is the key of a certfile, and there is none")
    mine = own.OwnLearner({}, learner)
    loaded = configuration.load(config, values=keywords)
    settings = own.configured(loaded).config
    log.start("master", settings.logging.log_dir, settings.logging.log_level)
    reports: process.WriteReports | None = None
    if settings.logging.save_results:
        from flq.reports.files import write_reports
        reports = write_reports
    return process.run(process.Options(settings, loaded.explicit, **options),
                       lambda resolved: mine, reports)
