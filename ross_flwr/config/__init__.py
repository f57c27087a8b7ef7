"""The run configuration: typed, validated, every key documented once.

A key is a dataclass field made by `option`. The keys of a run stand in `Config`; a method's own keys stand on its
class in `ross_flwr/algorithms`, beside the equations they belong to, and join the rest when it registers.
Outside Python a key is written in kebab-case, in a TOML file, after ``ross-flwr run -c`` and after
``flwr run --run-config`` alike; `to_toml` writes all of them, with what they mean.
"""

from ross_flwr.config.keys import ConfigError, Key, Scalar, host_and_port, option, require
from ross_flwr.config.run import Config, declare, keys, pick, relevant, resolve
from ross_flwr.config.toml import to_toml

__all__ = [
    "Config",
    "ConfigError",
    "Key",
    "Scalar",
    "declare",
    "host_and_port",
    "keys",
    "option",
    "pick",
    "relevant",
    "require",
    "resolve",
    "to_toml",
]
