"""flq.simulate, flq.load_run and flq.Result: runs from a program."""

import contextlib
import logging
import os
import tempfile
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    TypeVar,
    Union,
)

import numpy as np

from flq import command_line, idle_keys
from flq import config as configuration
from flq.api.configuration import Config, Source
from flq.errors import DataError
from flq.records import RoundRecord, Run

if TYPE_CHECKING:
    from pathlib import Path

    from flq.reports.tables import DataFrame

PathLike = Union[str, "os.PathLike[str]"]

_Kept = TypeVar("_Kept")
_log = logging.getLogger("flq.simulate")


class _Final(NamedTuple):
    """The last model: all weights in Keras's order, and new_model(), which builds one to put them
    in.
    """

    weights: List[np.ndarray]
    new_model: Callable[[], Any]


class Result(object):
    """What flq.simulate and flq.load_run give.

    config: a flq.Config. summary: a dict, as in summary.json. rounds, workers: tables with one row
    a round and one a round and worker. weights, model: of the last round. save(directory): files
    for people.
    """

    def __init__(self, run: Run, config: Callable[[], Config], final: Callable[[], _Final]) -> None:
        self._run, self._make_config, self._make_final = run, config, final
        self._kept: Dict[str, Any] = {}

    @property
    def config(self) -> Config:
        return self._once("config", self._make_config)

    @property
    def summary(self) -> Dict[str, Any]:
        return self._run.summary

    @property
    def rounds(self) -> "DataFrame":
        """A pandas table, a row a round; docs/algorithm.md 6 says what each of its bits counts."""
        from flq.reports.tables import rounds_table
        return self._once("rounds", lambda: rounds_table(self._run.rounds))

    @property
    def workers(self) -> "DataFrame":
        """A pandas table, a row for each worker in each round."""
        from flq.reports.tables import workers_table
        return self._once("workers", lambda: workers_table(self._run.worker_rounds))

    @property
    def weights(self) -> List[np.ndarray]:
        """The weights of the run's model, which was the one tested, in the order of Keras's
        get_weights(): the average of the last rounds, or the last broadcast model where
        model.averaging is 0.

        Of a run in a folder they are computed from run.db when they are first asked for. Raises
        DataError where there is none.
        """
        return self._final.weights

    @property
    def model(self) -> Any:
        """A tf.keras.Model with these weights, which gives logits; built when it is first asked
        for.
        """
        def build() -> Any:
            model = self._final.new_model()
            model.set_weights(self._final.weights)
            return model

        return self._once("model", build)

    def save(self, directory: PathLike) -> "List[Path]":
        """Write config.json, history.json, summary.json, the workbook and the plots; returns their
        paths. Raises DataError.
        """
        from pathlib import Path

        from flq.reports.files import write_reports
        from flq.reports.run_files import FILES, write_run
        folder = Path(os.fspath(directory))
        write_run(folder, self._run)
        return [folder / name for name in FILES] + write_reports(folder, self._run)

    def __repr__(self) -> str:
        from flq.reports.terminal import format_bits, format_percent, format_ratio
        summary = self.summary
        ways = [
            f"{way} {format_bits(summary['bits'][way]['payload'])} "
            f"({format_ratio(summary['compression'][way]['payload'])})"
            for way in ("up", "down")
        ]
        return (
            f"Result(mode {summary['mode']}, {summary['rounds']} rounds, accuracy "
            f"{format_percent(summary['accuracy'])}, {', '.join(ways)})"
        )

    @property
    def _final(self) -> _Final:
        return self._once("final", self._make_final)

    def _once(self, name: str, make: Callable[[], _Kept]) -> _Kept:
        if name not in self._kept:
            self._kept[name] = make()
        kept: _Kept = self._kept[name]
        return kept


def simulate(config: Source = None, on_round: Optional[Callable[[RoundRecord], Any]] = None,
             run_dir: Optional[PathLike] = None, learners: Optional[Sequence[Any]] = None,
             **keywords: Any) -> Result:
    """A whole run in this process, as `python -m flq simulate` plays it: every round waits for
    every worker unless quorum is set.

    config, keywords: as flq.Config takes them. run_dir: the folder of the run, which must hold none
    yet; without it nothing is kept outside of this process (while it runs, its store is in the
    folder for temporary files).

    on_round(record) is called in the caller's thread after each round was stored and tested; no
    worker begins the next one before it has returned. When it returns False, the run ends with that
    round; what it raises ends the run and goes to the caller, and so does KeyboardInterrupt. Signal
    handlers and logging stay as they are. Keys without effect are warnings of the logger
    flq.simulate.

    learners: your own, a flq.Learner for each worker, in place of FLQ's data and models; the first
    one also tests. Then no TensorFlow is imported.

    Raises ConfigError, DataError, and FlqError when a worker failed; it needs Python 3.9 and the
    packages of a master.

    >>> import flq
    >>> result = flq.simulate(mode="bin", max_rounds=2, total_workers=2)
    >>> result
    Result(mode bin, 2 rounds, accuracy ..., up 38.1 kbit (31.1x), down ...)
    >>> len(result.rounds), len(result.workers), result.rounds.payload_bits_up.tolist()
    (2, 4, [19040, 19040])
    >>> [weights.shape for weights in result.weights][:2], result.model.count_params()
    ([(3, 3, 1, 16), (16,)], 9258)
    >>> flq.simulate(result.config, on_round=lambda record: record.round < 2,
    ...              max_rounds=100).summary["rounds"]
    3
    """
    command_line.need_python(3, 9)
    if learners is not None:
        keywords = dict(keywords, total_workers=len(learners))
    given = Config(config, **keywords)
    loaded = configuration.simulated(configuration.Loaded(given, set(given.explicit)))
    if learners is not None:
        from flq.learning import own
        settings = Config.of(own.configured(loaded))
    else:
        settings = Config.of(loaded)
    for line in idle_keys.without_effect(settings, loaded.explicit):
        _log.warning("%s", line)
    from flq.simulation import run as simulation
    learner: Any = (simulation.simulation_learner(settings) if learners is None else
                    own.OwnLearner(dict(enumerate(learners))))
    services: List[Any] = []
    with contextlib.ExitStack() as stack:
        write: Any = None
        if run_dir is None:
            directory = os.path.join(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="flq-")), "run")
        else:
            directory = os.fspath(run_dir)
            if settings.logging.save_results:
                from flq.reports.files import write_reports as write
        _, run = simulation.simulate(settings, directory, learner, services.append,
                                     write_reports=write, take_signals=False, on_round=on_round)
    model = services[0].run.model
    final = _Final(learner.weights(*model.result), learner.new_model)
    return Result(run, lambda: settings, lambda: final)


def load_run(path: PathLike) -> Result:
    """The run in a folder: one that is over, was killed or goes on, from its run.db, else from the
    JSON files for people.

    Its weights are computed from run.db, which takes about as long as its rounds took without the
    training, and needs the data set and the model's function. Raises ConfigError where there is no
    run, and FlqError where it is damaged.

    >>> import flq, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> done = flq.simulate(mode="laq", max_rounds=2, total_workers=2, run_dir=folder.name + "/run")
    >>> again = flq.load_run(folder.name + "/run")
    >>> again.summary == done.summary, again.config == done.config
    (True, True)
    >>> all((left == right).all() for left, right in zip(again.weights, done.weights))
    True
    >>> folder.cleanup()
    """
    command_line.need_python(3, 9)
    from pathlib import Path

    from flq.master.store.results import read_run
    from flq.master.stored.stored_run import stored_config
    directory = Path(os.fspath(path))
    run = read_run(directory)
    return Result(run, lambda: Config(stored_config(run.config)), lambda: _recovered(directory))


def _recovered(directory: "Path") -> _Final:
    """The last model of a run, computed from its store."""
    from flq.learning.learner import build_learner
    from flq.master.stored.stored_run import open_stored_run
    if not (directory / "run.db").exists():
        raise DataError(f"the weights of the run in {directory} were not kept",
                        "a folder with run.db", "the files for people only")
    with open_stored_run(directory, lambda config: build_learner(config,
                                                                 (), evaluate=False)) as stored:
        model = stored.replayer.recover(stored.config, stored.first).model
        learner: Any = stored.learner  # what build_learner made
        return _Final(learner.weights(*model.result), learner.new_model)
