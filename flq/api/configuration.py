"""flq.Config: a configuration from keywords, which knows what was set and what is a default."""

import os
from typing import Any, Dict, FrozenSet, Tuple, Union

import numpy as np

from flq import config as configuration
from flq import keys
from flq.errors import ConfigError
from flq.settings import Config as Settings

Source = Union[None, str, "os.PathLike[str]", Dict[str, Any], Settings]


class Config(Settings):
    """A checked configuration: config.<section>.<key>, with no null where the mode decides.

    source: a dict as a file holds it (sections, `section.key` paths or short keys), the path of
    such a file, or another configuration; keywords, which are short keys or sections, count over
    it. Raises ConfigError, in one line, for what a file would be refused for.

    >>> import flq
    >>> config = flq.Config({"model.name": "mlp"}, mode="laq8", max_rounds=30)
    >>> config
    Config({'model.name': 'mlp'}, max_rounds=30, mode='laq8')
    >>> config.flq_algorithm.b_up, config.flq_algorithm.memory, config.system.total_workers
    (8, 'reference', 4)
    >>> flq.Config(config, mode="bin").flq_algorithm.b_up
    1
    >>> flq.Config(mod="bin")
    Traceback (most recent call last):
    flq.errors.ConfigError: configuration: unknown key mod; did you mean mode?
    """

    _explicit: Any = None

    def __new__(cls, source: Source = None, **keywords: Any) -> "Config":
        return cls.of(configuration.load(_given(source), values=_plain(keywords)))

    @classmethod
    def of(cls, loaded: configuration.Loaded) -> "Config":
        config: Config = cls._make(loaded.config)
        config._explicit = frozenset(loaded.explicit)
        return config

    @property
    def explicit(self) -> FrozenSet[str]:
        """The paths of the keys that somebody set; of a configuration that came without that, those
        that make it what it is.
        """
        if self._explicit is None:
            self._explicit = frozenset(_needed(self))
        explicit: FrozenSet[str] = self._explicit
        return explicit

    def values_set(self) -> Dict[str, Any]:
        """The explicit keys with their values, by path: Config(config.values_set()) == config."""
        return {
            path: value for path, value in configuration.flat(self).items() if path in self.explicit
        }

    def __repr__(self) -> str:
        keywords, by_path = [], {}
        for path, value in self.values_set().items():
            name = path.partition(".")[2]
            if sum(key.name == name for key in keys.KEYS) == 1:
                keywords.append(f"{name}={value!r}")
            else:
                by_path[path] = value
        return f"Config({', '.join(([repr(by_path)] if by_path else []) + keywords)})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return Config, (self.values_set(),)


def _given(source: Any) -> Any:
    """What configuration.load takes."""
    if source is None or isinstance(source, str):
        return source
    if isinstance(source, Config):
        return source.values_set()
    if isinstance(source, Settings):
        # Whether somebody set the quorum is not known; a simulation shall not take it for a
        # default.
        return dict(_needed(source),
                    **{"system.quorum": configuration.flat(source)["system.quorum"]})
    if isinstance(source, dict):
        return _plain(source)
    if hasattr(source, "__fspath__"):
        return os.fspath(source)
    raise ConfigError("this is no configuration",
                      "a flq.Config, a dict, the path of a file or None",
                      type(source).__name__)


def _plain(value: Any) -> Any:
    """NumPy's numbers and paths as a file has them."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if hasattr(value, "__fspath__") else value


def _needed(config: Settings) -> Dict[str, Any]:
    """The values, by path, without those that the others and the defaults give anyway."""
    values = dict(configuration.flat(config))
    for path in list(values):
        rest = {other: value for other, value in values.items() if other != path}
        try:
            same = configuration.build(rest) == config
        except ConfigError:
            continue
        if same:
            values = rest
    return values
