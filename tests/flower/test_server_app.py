"""The ServerApp of this repository, and the folder that it leaves its results in."""

from types import SimpleNamespace

import pytest
from nodes import Nodes

from ross_flwr.config import ConfigError
from ross_flwr.files import held
from ross_flwr.flower import client_app
from ross_flwr.flower.server_app import main
from ross_flwr.runs.folder import RunFolder

KEYS = {"algorithm": "dpsgd", "beside": "", "num-agents": 4, "num-rounds": 2, "topology": "ring", "attackers": 0}
KEYS |= {"validation-size": 20, "test-size": 50, "hidden": 4}


def test_results_are_kept_in_a_folder_that_no_other_process_has_and_that_is_no_link(tmp_path):
    context = SimpleNamespace(run_config=KEYS | {"results": str(tmp_path / "results")})
    grid = Nodes(client_app.app)
    main(grid, context)
    folder = RunFolder(tmp_path / "results" / "dpsgd")
    assert len(folder.read_history()) == folder.read_summary()["rounds"] == 2
    with held(folder.path), pytest.raises(ConfigError, match="dpsgd is in use: another process runs in it"):
        main(grid, context)
    files = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    with pytest.raises(ConfigError, match="dpsgd holds a run already"):
        main(grid, context)
    assert {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()} == files
    folder.path.rename(tmp_path / "outside")
    folder.path.symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="dpsgd is a link"):
        main(grid, context)
