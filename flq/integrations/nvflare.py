"""FLQ's updates on NVIDIA FLARE: a pair of DXO filters on the server, one on each client.

    pip install "flq[nvflare]"

In a job two lines are new:

    from flq.integrations.nvflare import add_flq
    add_flq(recipe, mode="laq")

Quantised differences travel down in place of the model, and coded low-bit updates with memory up.
docs/engines.md says what is kept of FLQ on NVFlare and what is lost.
"""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe.spec import Recipe

from flq import config as configuration
from flq.integrations.exchange import MOVING_NAMES
from flq.integrations.nvflare_client import ModelDecoder, UpdateEncoder
from flq.integrations.nvflare_server import ModelEncoder, UpdateDecoder


def add_flq(job: Recipe | FedJob, config: str | dict[str, Any] | None = None,
            aggregate: str = "flq", moving: Iterable[str] = MOVING_NAMES,
            tasks: Sequence[str] = ("train",), **keywords: Any) -> None:
    """Let the models and the updates of a job's training travel as FLQ's.

    job: a recipe, or a FedJob whose clients have their executor. config, keywords: FLQ's
    configuration, as flq.Config takes it. What concerns FLQ's own training and network does not
    count, and total_workers only for a rule against bad workers. aggregate: `flq`, FLQ makes the
    step itself (docs/algorithm.md 1 and 3), with its correction and its server optimisers, in a
    workflow such as FedAvg; `engine`, the job's workflow makes it from the updates that arrived,
    FedOpt for instance. moving: patterns of the names of arrays that travel in float32 and are
    averaged, those of batch normalisation by default. tasks: those that train. Raises ConfigError
    and DataError.

    The model that the job keeps is the one that FLQ keeps: with model.averaging the average, else
    what the clients hold.

    Example:

        recipe = FedAvgRecipe(name="job", model=Net(), min_clients=2, num_rounds=5,
                              train_script="client.py")
        add_flq(recipe, mode="rd")
        recipe.execute(SimEnv(num_clients=2))
    """
    loaded = configuration.load(config, values=keywords)
    values = {path: value for path, value in configuration.flat(loaded.config).items()
              if path in loaded.explicit}
    names = list(tasks)
    to_clients, from_server = ModelEncoder(values, aggregate, list(moving)), ModelDecoder()
    to_server, from_clients = UpdateEncoder(), UpdateDecoder()
    fed_job = job._job if isinstance(job, Recipe) else job  # a recipe has no name for it
    # FLQ is installed on every site: without this NVFlare packs parts of it into the job.
    fed_job.set_app_packages(fed_job.job.app_packages + ["flq"])
    if isinstance(job, Recipe):
        job.add_server_output_filter(to_clients, names)
        job.add_client_input_filter(from_server, names)
        job.add_client_output_filter(to_server, names)
        job.add_server_input_filter(from_clients, names)
    else:
        job.to_server(to_clients, filter_type=FilterType.TASK_DATA, tasks=names)
        job.to_clients(from_server, filter_type=FilterType.TASK_DATA, tasks=names)
        job.to_clients(to_server, filter_type=FilterType.TASK_RESULT, tasks=names)
        job.to_server(from_clients, filter_type=FilterType.TASK_RESULT, tasks=names)
