#!/usr/bin/env bash
# Run ross_flwr as on a Raspberry Pi, on an x86 Debian machine: Debian's Python for 64-bit ARM and the packages of devices.txt, with
# QEMU as the processor. Then compare with this machine what agents learn: in one process, and as one node of four.
#
#   deploy/arm64.sh                         both, in a temporary folder
#   deploy/arm64.sh process                 three rounds of four agents in one process
#   deploy/arm64.sh node                    one emulated node among three others, talking directly with TLS
#   WORK=/some/folder deploy/arm64.sh …     keep the installation there for the next time
#
# It needs the Debian packages mmdebstrap and qemu-user-static, ross_flwr's commands on PATH, and 1.5 GB. It does not have to be root:
# the kernel is not told of QEMU, but a script in the place of Python calls it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-process node}
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
root="$work/root" arm="$work/arm64"
keys="algorithm='ross' beside='' num-agents=4 topology='ring' attackers=0 num-rounds=3 evaluate-every=3"
export OMP_NUM_THREADS=1

if [ ! -e "$root/usr/bin/python3" ]; then
    sources=/etc/apt/sources.list.d/debian.sources
    mmdebstrap --quiet --variant=extract --arch=arm64 --include=python3-venv,libstdc++6 bookworm "$root" \
        "$([ -e $sources ] && echo $sources || echo /etc/apt/sources.list)" 2>"$work/mmdebstrap.log"
fi
if [ ! -e "$arm/bin/flwr" ]; then
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
    # Flower has to hear of an app's process within 30 s. That is too soon for an emulated processor with other work.
    sed -i 's/^HEARTBEAT_DEFAULT_INTERVAL = 30$/HEARTBEAT_DEFAULT_INTERVAL = 300/' \
        "$arm"/lib/python3.11/site-packages/flwr/common/constant.py
fi
uv build --quiet --wheel --out-dir "$work" "$here/.."
uv pip install --quiet --python "$arm/bin/python" --no-deps --reinstall "$work"/ross_flwr-*.whl
[ "$(python3 -c 'import sys; print(sys.implementation.cache_tag)')" != cpython-311 ] || # or it takes the emulated one minutes
    python3 -m compileall -q -x '/(tests?|idlelib|sympy|_inductor)/' "$root/usr/lib/python3.11" "$arm/lib" >"$work/compiled.log" || true
du -sm "$root" "$arm" | sed 's/\t/ MB  /'

same() { # same FOLDER FOLDER: fail unless both runs ended with the same model
    python3 - "$1" "$2" <<'PYTHON'
import sys
from pathlib import Path
from safetensors.torch import load_file
one, other = (load_file(next(Path(folder).rglob("model.safetensors"))) for folder in sys.argv[1:])
difference = max((one[name] - other[name]).abs().max().item() for name in one.keys() | other.keys())
print(f"the models differ by {difference:.1g} at most")
sys.exit(difference > 1e-4)
PYTHON
}

rm -rf "$work/here" "$work/process" "$work/node"
options=()
for key in $keys; do options+=(-c "${key//\'/}"); done
ross-flwr run "${options[@]}" --out "$work/here" >"$work/here.log"
for part in $what; do
    echo "== $part"
    case $part in
    process)
        began=$SECONDS
        "$arm/bin/ross-flwr" run "${options[@]}" --out "$work/process" &
        python3 "$here/memory.py" $!
        wait $!
        echo "$((SECONDS - began)) s"
        same "$work/here" "$work/process"
        ;;
    node)
        mkdir -p "$work/bin"
        cat >"$work/bin/flower-supernode" <<SH
#!/usr/bin/env bash
[[ "\$*" != */agent-4/* ]] || PATH="$arm/bin:\$PATH"
PATH="\${PATH#$work/bin:}" exec flower-supernode "\$@"
SH
        chmod +x "$work/bin/flower-supernode"
        mkdir "$work/node"
        PATH="$work/bin:$PATH" WORK="$work/node" "$here/local.sh" \
            "$keys transport='direct' phase-timeout=600.0 slowest=100.0 return-model='final'" &
        script=$!
        until [ -e "$work/node/agent-4.pid" ] || ! kill -0 $script 2>/dev/null; do sleep 0.2; done
        python3 "$here/memory.py" "$(cat "$work/node/agent-4.pid")" &
        wait $script
        wait
        same "$work/here" "$work/node/results"
        ;;
    esac
done
