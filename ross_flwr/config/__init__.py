"""The run configuration: typed, validated, every key explained once.

A key is a dataclass field made by `option`. The keys of a run form groups, each a dataclass made by `group` in the room
that it configures. A method's own keys are fields of its class in `ross_flwr/algorithms`, beside the equations they
belong to, and a rule's keys are fields of its class in `ross_flwr/learning/rules`. `resolve` checks what a user gives
and fills in the defaults; `Config.part` returns a group or a method with its values. Outside Python a key is written in
kebab-case: in a TOML file, after ``ross-flwr run -c`` and after ``flwr run --run-config``. `to_toml` writes all keys
with their meanings.
"""

from ross_flwr.config.addresses import host_and_port, require_host
from ross_flwr.config.groups import declare, group, keys
from ross_flwr.config.keys import (
    ConfigError,
    Key,
    Scalar,
    keys_of,
    one_line,
    option,
    options_of,
    part,
    require,
    shown,
    values_of,
)
from ross_flwr.config.resolved import Config, likely_key, relevant, resolve
from ross_flwr.config.specs import Spec, Specs
from ross_flwr.config.toml import from_toml, to_toml

__all__ = [
    "Config",
    "ConfigError",
    "Key",
    "Scalar",
    "Spec",
    "Specs",
    "declare",
    "from_toml",
    "group",
    "host_and_port",
    "keys",
    "keys_of",
    "likely_key",
    "one_line",
    "option",
    "options_of",
    "part",
    "relevant",
    "require",
    "require_host",
    "resolve",
    "shown",
    "to_toml",
    "values_of",
]
