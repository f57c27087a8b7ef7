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
def test_a_device_learns_what_this_machine_does(tmp_path):
    within = {**environment(tmp_path / "flwr"), "WORK": str(tmp_path / "work")}
    done = subprocess.run(
        [ROOT / "deploy/arm64.sh"], env=within, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout  # the script compares the models
