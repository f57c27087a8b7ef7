"""From what a strategy is given, objects or names, to the configuration that its nodes are told."""

from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.config import Config, ConfigError, Scalar, keys_of, resolve

__all__ = ["config_of"]


def config_of(transport: str, algorithm: str | Algorithm, topology: str, options: dict[str, Scalar]) -> Config:
    """Return the configuration of a run in which nobody attacks unless `attackers` says so.

    An algorithm object stands for its name and its options: nodes make it again.

    Raises
    ------
    ConfigError
        When an option is not known, not possible, or given twice.
    """
    given = {name.replace("_", "-"): value for name, value in options.items()}
    if given.setdefault("transport", transport) != transport:
        raise ConfigError(
            f"transport = '{given['transport']}' is another strategy: use PeerRelay for relay, PeerDirect for direct, "
            "PeerHybrid for hybrid"
        )
    own = {} if isinstance(algorithm, str) else _options_of(algorithm)
    if twice := own.keys() & given.keys():
        raise ConfigError(f"{min(twice)} is an option of the algorithm object: give it there alone")
    name = algorithm if isinstance(algorithm, str) else algorithm.name
    return resolve({"attackers": 0, **own, **given, "algorithm": name, "topology": topology})


def _options_of(algorithm: Algorithm) -> dict[str, Scalar]:
    cls = type(algorithm)
    if ALGORITHMS.get(getattr(cls, "name", "")) is not cls:
        raise ConfigError(f"{cls.__name__} is not registered: decorate it with @register(name), here and on the nodes")
    return {key.name: getattr(algorithm, key.name.replace("-", "_")) for key in keys_of(cls)}
