#!/usr/bin/env bash
# Try the units for systemd without a machine that boots: have the systemd of an architecture verify them, and start their commands by
# hand in a chroot, as the units' user, with their environment, until the SuperNode is online.
#
#   sudo --preserve-env deploy/units.sh [ARCHITECTURE]
#
# It needs mmdebstrap, the image that `images.sh ARCHITECTURE` leaves, and the commands of Flower and ross_flwr on PATH; for an
# architecture other than this machine's, also a kernel that knows QEMU.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-$(dpkg --print-architecture)}
work=$(mktemp -d)
root="$work/root" log="$work/log"
started=()
stop() {
    kill -- "${started[@]/#/-}" 2>/dev/null || true # each with the processes that it started
    wait
    rm -rf "$work"
}
trap stop EXIT

sources=/etc/apt/sources.list.d/debian.sources
mmdebstrap --quiet --variant=extract --architectures="$arch" --include=dash,coreutils,systemd,python3,libstdc++6 \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr bookworm "$root" "$([ -e $sources ] && echo $sources || echo /etc/apt/sources.list)" \
    >"$log" 2>&1 || { cat "$log"; exit 1; }
mkdir -p "$root/opt" "$root/etc/ross-flwr/certs" "$root/etc/systemd/system" "$root/run" "$root/tmp" "$root/dev" "$root/proc"
container=$(podman create --arch "$arch" "localhost/ross-flwr:$arch" true)
podman cp "$container:/opt/ross-flwr" "$root/opt/"
podman rm "$container" >/dev/null

user=990
printf '%s:x:%s:%s::%s:/usr/sbin/nologin\n' root 0 0 /root ross-flwr $user $user /var/lib/ross-flwr >"$root/etc/passwd"
printf '%s:x:%s:\n' root 0 ross-flwr $user >"$root/etc/group"
install -d -o $user -g $user "$root/var/lib/ross-flwr"
cp deploy/systemd/*.service "$root/etc/systemd/system/"
port=$(python3 -c "import socket; print(socket.create_server(('127.0.0.1', 0)).getsockname()[1])")
sed "s/^SUPERLINK_HOST=.*/SUPERLINK_HOST=127.0.0.1/; s/^SUPERLINK_PORT=.*/SUPERLINK_PORT=$port/
    s/^SUPERLINK=.*/SUPERLINK=127.0.0.1:$port/" deploy/systemd/ross-flwr.env >"$root/etc/ross-flwr/ross-flwr.env"
chroot "$root" uname -m
chroot "$root" systemd-analyze --version | head -n 1
chroot "$root" systemd-analyze verify --man=no /etc/systemd/system/ross-flwr-superlink.service /etc/systemd/system/ross-flwr-agent.service
echo "the units are verified"

ross-flwr certs init --in "$work/certs" >/dev/null
ross-flwr certs issue superlink agent --host 127.0.0.1 --in "$work/certs" >/dev/null
chown -R $user "$work/certs/superlink" "$work/certs/agent"

cat >"$work/command.py" <<'PYTHON'
"""Print a unit's command, with the variables of its environment in place, as env(1) starts it."""
import re
import shlex
import sys
from pathlib import Path

root, unit = sys.argv[1:]
text = Path(f"{root}/etc/systemd/system/{unit}.service").read_text().replace("\\\n", "")
setting = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
lines = Path(root + setting["EnvironmentFile"]).read_text().splitlines()
variables = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
words = [re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], word) for word in shlex.split(setting["ExecStart"])]
assert variables["PATH"].startswith(str(Path(words[0]).parent))
print(shlex.join(["env", "-i", f"--chdir={setting['WorkingDirectory']}", *map("=".join, variables.items()), *words]))
PYTHON
start() { # start UNIT CERTIFICATE: as on a machine of its own
    local command
    command=$(python3 "$work/command.py" "$root" "$1")
    echo "+ ${command##* /opt/ross-flwr/bin/}"
    setsid unshare --mount sh -c "mount --bind '$work/certs/$2' '$root/etc/ross-flwr/certs' && mount --rbind /dev '$root/dev' &&
        mount -t proc proc '$root/proc' && exec chroot --userspec=$user:$user '$root' $command" >"$work/$2.log" 2>&1 &
    started+=($!)
}
until_() { # until_ COMMAND…: wait until it succeeds, while all that was started runs
    until "$@" >/dev/null 2>&1; do
        kill -0 "${started[@]}" || { tail -n 30 "$work"/*.log; exit 1; }
        sleep 5
    done
}
export FLWR_HOME="$work/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
mkdir "$FLWR_HOME"
printf '[superlink.here]\naddress = "127.0.0.1:%s"\nroot-certificates = "%s/certs/ca.pem"\n' "$port" "$work" >"$FLWR_HOME/config.toml"
began=$SECONDS
start ross-flwr-superlink superlink
until_ flwr supernode list here
echo "the SuperLink serves after $((SECONDS - began)) s"
flwr supernode register "$work/certs/agent/auth.pub" here --name agent >/dev/null
began=$SECONDS
start ross-flwr-agent agent
online() { flwr supernode list here | grep -q online; }
until_ online
echo "the SuperNode is online after $((SECONDS - began)) s"
ps -o user:10,rss,args -p "$(pgrep -g "$(IFS=,; echo "${started[*]}")" | paste -sd,)" | cut -c1-120
