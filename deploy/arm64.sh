#!/usr/bin/env bash
# Run ross_flwr as on a Raspberry Pi, on an x86 Debian machine: Debian's Python for 64-bit ARM and the packages of devices.txt, with
# QEMU as the processor. Three rounds of four agents in one process have to end with the models that they end with on this machine.
#
#   deploy/arm64.sh                         in a temporary folder
#   WORK=/some/folder deploy/arm64.sh       keep the installation there for the next time
#
# It needs the Debian packages mmdebstrap and qemu-user-static, ross_flwr's commands on PATH, and 1 GB. The kernel need not know QEMU:
# a script in the place of Python calls it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
root="$work/root" arm="$work/arm64"
export OMP_NUM_THREADS=1

if [ ! -e "$root/usr/bin/python3" ]; then
    sources=/etc/apt/sources.list.d/debian.sources
    mmdebstrap --quiet --variant=extract --arch=arm64 --include=python3-venv,libstdc++6 bookworm "$root" \
        "$([ -e $sources ] && echo $sources || echo /etc/apt/sources.list)" 2>"$work/mmdebstrap.log"
fi
if [ ! -e "$arm/bin/ross-flwr" ]; then
    mkdir -p "$arm/bin" "$arm/lib/python3.11/site-packages"
    printf 'home = %s/usr/bin\nversion = 3.11.2\n' "$root" >"$arm/pyvenv.cfg"
    cat >"$arm/bin/python" <<SH
#!/bin/sh
unset PYTHONPATH PYTHONDONTWRITEBYTECODE
exec qemu-aarch64-static -L "$root" -0 "$arm/bin/python" "$root/usr/bin/python3.11" "\$@"
SH
    chmod +x "$arm/bin/python"
    ln -s python "$arm/bin/python3"
    uv pip install --quiet --python "$arm/bin/python" --no-deps --require-hashes -r "$here/devices.txt"
    uv build --quiet --wheel --out-dir "$work" "$here/.."
    uv pip install --quiet --python "$arm/bin/python" --no-deps "$work"/ross_flwr-*.whl
    [ "$(python3 -c 'import sys; print(sys.implementation.cache_tag)')" != cpython-311 ] || # or it takes the emulated one minutes
        python3 -m compileall -q -x '/(tests?|idlelib|sympy|_inductor)/' "$root/usr/lib/python3.11" "$arm/lib" >"$work/compiled.log" || true
    du -sm "$root" "$arm" | sed 's/\t/ MB  /'
fi

rm -rf "$work/here" "$work/emulated"
keys=(-c algorithm=ross -c beside= -c num-agents=4 -c topology=ring -c attackers=0 -c num-rounds=3 -c evaluate-every=3)
ross-flwr run "${keys[@]}" --out "$work/here" >"$work/here.log"
"$arm/bin/ross-flwr" run "${keys[@]}" --out "$work/emulated" &
python3 "$here/memory.py" $!
wait $!
python3 - "$work/here" "$work/emulated" <<'PYTHON'
import sys
from pathlib import Path

from safetensors.torch import load_file

one, other = (load_file(Path(folder) / "model.safetensors") for folder in sys.argv[1:])
difference = max((one[name] - other[name]).abs().max().item() for name in one.keys() | other.keys())
print(f"the models differ by {difference:.1g} at most")
sys.exit(difference > 1e-4)
PYTHON
