"""What deploy/arm64.sh does: a device for 64-bit ARM, emulated."""

import shutil
import subprocess

import pytest
from deployed import PATH, ROOT, environment


@pytest.mark.device
@pytest.mark.skipif(
    not all(shutil.which(each, path=PATH) for each in ("qemu-aarch64-static", "mmdebstrap", "uv")),
    reason="needs Debian's qemu-user-static and mmdebstrap",
)
def test_a_device_learns_what_this_machine_does_in_one_process_and_as_a_node_among_others(tmp_path):
    within = {"WORK": str(tmp_path / "work"), **environment(tmp_path / "flwr")}  # WORK may name an installation
    done = subprocess.run(
        [ROOT / "deploy/arm64.sh"], env=within, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout  # the script compares the models
    assert done.stdout.count("the models differ by") == 2
