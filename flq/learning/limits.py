"""How large a training may be that somebody else's configuration asks for (docs/security.md).

A worker gets its model, its batches and the size of its images from its master. Each is bounded
before anything of its size is made, by numbers that only the worker's owner can change.
"""

import math
from typing import Any, NamedTuple, Sequence, Tuple

from flq.errors import ConfigError
from flq.learning.batches import batch_size_of, local_steps_of
from flq.parameters import Layout, size_of
from flq.settings import Config

_MIB = 2 ** 20


class Limits(NamedTuple):
    """What a worker's owner grants a master, as the keys of the section security.

    max_params: p with the non-trainable values and those of frozen layers. max_batch_values:
    samples of a batch x numbers of a sample; `cnn` keeps about 1 kB for each while it trains.
    max_round_samples: E_m x B. max_data_mb: MiB of a folder's images at the size that is asked for.
    """

    max_params: int
    max_batch_values: int
    max_round_samples: int
    max_data_mb: int

    @classmethod
    def of(cls, config: Config) -> "Limits":
        """Those of the owner's configuration."""
        return cls(*(getattr(config.security, name) for name in cls._fields))

    def check_images(self, num_images: int, values: int) -> None:
        """values: numbers of one image. Raises ConfigError, as all of these."""
        self._check("max_data_mb", "images of that size", math.ceil(num_images * values / _MIB),
                    "MiB")

    def check_training(self, config: Config, input_shape: Tuple[int, ...],
                       shard_sizes: Sequence[int]) -> None:
        """The batches of workers with so many samples each."""
        values = size_of(input_shape)
        for samples in shard_sizes:
            batch = batch_size_of(config, samples)
            self._check("max_batch_values", f"a batch of {batch} samples", batch * values,
                        "numbers")
            self._check("max_round_samples", "a round", local_steps_of(config, samples) * batch,
                        "samples")

    def check_model(self, name: str, num_params: int) -> None:
        """name: of the model, as an error calls it."""
        self._check("max_params", f"model {name}", num_params, "weights")

    def check_layout(self, name: str, layout: Layout) -> None:
        """Of a model whose size is known only when it is there."""
        self.check_model(name,
                         layout.num_params + layout.num_non_trainable + layout.num_constants)

    def _check(self, name: str, what: str, asked: int, unit: str) -> None:
        most: Any = getattr(self, name)
        if asked > most:
            raise ConfigError(f"the master asks for more than this worker grants: {what}",
                              f"at most {most} {unit}", asked,
                              f"grant it with --set security.{name}={asked}")
