"""Where a node may serve."""

import pytest

from ross_flwr import ConfigError
from ross_flwr.direct.channels import check_address


@pytest.mark.parametrize("address", ["", "9700", "host:", "host:0", "host:70000", "host:http"])
def test_what_is_no_address_is_told(address):
    with pytest.raises(ConfigError, match="is not an address"):
        check_address(address, secure=True, remote=False)


def test_without_certificates_only_this_machine_is_served_unless_said_twice():
    for address in ("127.0.0.1:9700", "localhost:9700", "[::1]:9700"):
        check_address(address, secure=False, remote=False)
    for address in ("0.0.0.0:9700", "192.168.1.20:9700", "kitchen:9700"):
        check_address(address, secure=True, remote=False)
        check_address(address, secure=False, remote=True)
        with pytest.raises(ConfigError, match="peer-insecure-remote"):
            check_address(address, secure=False, remote=False)
