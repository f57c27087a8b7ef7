"""Where nodes run and how they reach each other: every number that a plan takes as given, or that was measured once."""

import re
from dataclasses import dataclass
from math import inf

from ross_flwr.config import ConfigError

__all__ = ["DEPLOYMENT", "LINKS", "MEMORY", "SERVER", "SIMULATION", "Link", "Relay", "Server", "read_link"]


@dataclass(frozen=True)
class Link:
    """A node's way to the others.

    Attributes
    ----------
    up, down : float
        Bytes per second that the node sends and receives.
    latency : float
        Seconds from one end to the other.
    shared : bool
        Whether all nodes share the processor of this machine.
    """

    up: float = inf
    down: float = inf
    latency: float = 0.0
    shared: bool = False


LINKS = {
    "loopback": Link(shared=True),
    "simulation": Link(shared=True),
    "lan": Link(125e6, 125e6, 0.0005),
    "wifi": Link(6.25e6, 6.25e6, 0.005),
    "lte": Link(1.25e6, 3.75e6, 0.05),
}
"""Links by name. All nodes are processes on this machine (`loopback`), or nodes of Flower's simulation on it; or they
have a wire of 1 Gbit/s, 50 Mbit/s without a wire, or 10 Mbit/s up and 30 down over a mobile network."""


def read_link(text: str) -> Link:
    """Return the link with this name, or with these bits per second, both ways, and milliseconds.

    Raises
    ------
    ConfigError
        When it is neither.

    Examples
    --------
    >>> read_link("100mbit,5ms")
    Link(up=12500000.0, down=12500000.0, latency=0.005, shared=False)
    """
    if text in LINKS:
        return LINKS[text]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(k|m|g)bit(?:,(\d+(?:\.\d+)?)ms)?", text)
    if not found or not float(found[1]):
        raise ConfigError(
            f"--link {text} is not a link: use {', '.join(LINKS)}, or a rate such as 100mbit or 2gbit,5ms"
        )
    rate = float(found[1]) * {"k": 1e3, "m": 1e6, "g": 1e9}[found[2]] / 8
    return Link(rate, rate, float(found[3] or 0) / 1000)


@dataclass(frozen=True)
class Server:
    """The machine of SuperLink and ServerApp: its link in bytes per second, and its memory in bytes."""

    up: float = 125e6
    down: float = 125e6
    memory: float = 16e9


SERVER = Server()


@dataclass(frozen=True, kw_only=True)
class Relay:
    """What Flower takes for a message to a node and the reply, in seconds.

    Attributes
    ----------
    poll : float
        Between two looks of a node for messages.
    start : float
        Processor time of the node beside the steps, such as that in which the ClientApp starts.
    notice : float
        From the end of that until the reply leaves.
    app, link : float
        Processor time of the ServerApp and of the SuperLink.
    app_byte, link_byte, node_byte : float
        More of it for each byte that comes or goes.
    """

    poll: float
    start: float = 0.0
    notice: float = 0.0
    app: float = 0.0
    link: float = 0.0
    app_byte: float = 0.0
    link_byte: float = 0.0
    node_byte: float = 0.0


SIMULATION = Relay(poll=0.1, start=0.016, app=0.003)
"""Flower 1.41's simulation on Ray: what makes 100 nodes of one agent each run at 1.05 rounds/s on two cores."""

DEPLOYMENT = Relay(
    poll=3.0, start=3.5, notice=1.5, app=0.026, link=0.15, app_byte=2e-9, link_byte=1.2e-8, node_byte=1.2e-8
)
"""Flower 1.41 deployed, with a process for each ClientApp. Its intervals are those in its code. `start` is the import
of PyTorch, Flower and this package; `app` and `link` are twice what it took to push messages of 1 kB to 4 MB."""


@dataclass(frozen=True)
class Memory:
    """What processes hold in bytes before a model comes, and how often they hold one.

    Attributes
    ----------
    node, superlink, server_app : float
        With Python, PyTorch and Flower.
    models : float
        Models that a node holds besides its state and its messages.
    copies : float
        How often SuperLink and ServerApp hold what they relay.
    """

    node: float = 290e6
    superlink: float = 160e6
    server_app: float = 356e6
    models: float = 3.0
    copies: float = 2.0


MEMORY = Memory()
