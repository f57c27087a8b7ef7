#!/usr/bin/env bash
# Build the image of deploy/Dockerfile with podman, start a SuperLink and two agents from it as compose.yaml says, and run two rounds
# on them: as user 1000, with a read-only root, without capabilities, their state in volumes, until their health checks are content.
#
#   deploy/images.sh                            for this machine's architecture, on Debian packages (needs mmdebstrap)
#   deploy/images.sh arm64                      for another one, where the kernel knows QEMU (qemu-user-static, binfmt-support)
#   BASE=python:3.12-slim deploy/images.sh      on an image of a registry
#   BUILD="--build-arg TORCH_INDEX=…" deploy/images.sh      more options for `podman build`; amd64 needs this one
#   AGENT="--memory 512m" deploy/images.sh      more options for `podman run` of the agents
#   KEYS="num-rounds=9 model='cnn'" deploy/images.sh        other keys of the run
#   DATA=/some/folder deploy/images.sh          a folder for all containers to read, as /data
#
# The image localhost/ross-flwr:ARCHITECTURE stays. Where podman's defaults do not work, give it others in its own way: variables
# such as STORAGE_DRIVER and CONTAINERS_CONF.
set -euo pipefail
cd "$(dirname "$0")/.."
own=$(dpkg --print-architecture)
arch=${1:-$own}
image="localhost/ross-flwr:$arch" ours="ross-flwr-$arch"
work=$(mktemp -d)
names=(superlink agent-1 agent-2)
stop() {
    podman rm --force --ignore --time 20 "${names[@]/#/$ours-}" >/dev/null 2>&1 || true
    podman volume rm "${names[@]/#/$ours-}" >/dev/null 2>&1 || true
    podman network rm "$ours" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap stop EXIT

base() { # base ARCHITECTURE PACKAGE: make the image $debian:ARCHITECTURE of few packages, unless it is there
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -e $sources ] || sources=/etc/apt/sources.list
    podman image exists "$debian:$1" && return
    # Without the hook, Debian installs all of Perl to merge /usr, which an emulated processor does for long.
    mmdebstrap --quiet --variant=essential --architectures="$1" --include="$2,libstdc++6,passwd" \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' bookworm "$work/base.tar" $sources >"$work/base.log" 2>&1 ||
        { cat "$work/base.log" >&2; exit 1; }
    podman import --quiet --arch "$1" "$work/base.tar" "$debian:$1"
    rm "$work/base.tar"
}
debian=localhost/ross-flwr-base
if [ -z "${BASE:-}" ]; then
    BASE="$debian:$arch" BUILDER="$debian:$own"
    base "$own" python3-venv
    base "$arch" python3
fi
podman build --quiet --format docker --isolation chroot --network host --platform "linux/$arch" -f deploy/Dockerfile -t "$image" \
    --build-arg BUILDPLATFORM="linux/$own" --build-arg BASE="$BASE" --build-arg BUILDER="${BUILDER:-$BASE}" ${BUILD:-} .
for each in "$BASE" "$image"; do
    echo "$each: $(($(podman image inspect --format '{{.Size}}' "$each") / 1000000)) MB"
done

patience=() pause=1
run() { podman run --network "$ours" "${patience[@]}" ${DATA:+"--volume=$DATA:/data:ro"} "$@"; }
inside() { podman exec --interactive "$ours-superlink" "$@"; }
podman network create "$ours" >/dev/null
mkdir "$work/certs" "$work/app"
cp -r pyproject.toml README.md LICENSE ross_flwr "$work/app"
run --rm --user 0 --volume "$work/certs:/certs" --workdir / "$image" sh -c "ross-flwr certs init && chmod 755 certs &&
    ross-flwr certs issue superlink --host superlink --host 127.0.0.1 && ross-flwr certs issue agent-1 agent-2 &&
    chown -R 1000 certs/superlink certs/agent-*"
if [ "$arch" != "$own" ]; then # Flower has to hear of an app's process within 30 s: too soon for an emulated processor with other work
    constants=$(run --rm "$image" python3 -c "import flwr.common.constant as module; print(module.__file__)")
    run --rm "$image" sed 's/^HEARTBEAT_DEFAULT_INTERVAL = 30$/HEARTBEAT_DEFAULT_INTERVAL = 300/' "$constants" >"$work/constant.py"
    patience=("--volume=$work/constant.py:$constants:ro") pause=20 # a health check is work for it too
fi
cat >"$work/services.py" <<'PYTHON'
"""Print the command that starts each service."""
import shlex
import sys

import yaml

ours, image, certs, app, more, *names = sys.argv[1:]
services = yaml.safe_load(sys.stdin)["services"]
for name in names:
    service = services[name]
    words = [f"--name={ours}-{name}", f"--hostname={name}", f"--network-alias={name}", f"--volume={certs}:/deployment:ro"]
    words += ["--read-only"] if service["read_only"] else []
    words += [f"--volume={volume}" for volume in service["volumes"]]
    for option in ("tmpfs", "cap_drop", "security_opt"):
        words += [f"--{option.replace('_', '-')}={each}" for each in service[option]]
    words += more.split() if name != "superlink" else [f"--volume={app}:/app:ro"]
    command = [word.replace("$$", "$") for word in service["command"]]
    print(shlex.join(["run", "--detach", *words, image, *command]))
PYTHON
commands=$(sed "s#\.\./certs#$work/certs#; s#\"\([a-z0-9-]*:/state\)#\"$ours-\1#" deploy/compose.yaml |
    podman run --rm --interactive --volume "$work/services.py:/services.py:ro" "$image" \
        python3 /services.py "$ours" "$image" "$work/certs" "$work/app" "${AGENT:-}" "${names[@]}")
start() { # start NAME: and wait until its health check is content
    eval "$(grep -e "--name=$ours-$1 " <<<"$commands")" >/dev/null
    until podman healthcheck run "$ours-$1" >/dev/null 2>&1; do
        [ "$(podman inspect --format '{{.State.Status}}' "$ours-$1")" = running ] || { podman logs "$ours-$1"; exit 1; }
        sleep $pause
    done
    echo "$1 is healthy after $SECONDS s"
}
start superlink
inside sh -c 'mkdir -p $FLWR_HOME && cat >$FLWR_HOME/config.toml' <<'TOML'
[superlink.here]
address = "127.0.0.1:9092"
root-certificates = "/certs/ca.pem"
TOML
for name in agent-1 agent-2; do
    inside flwr supernode register "/deployment/$name/auth.pub" here >/dev/null
    start $name
done
! podman exec --user 0 "$ours-superlink" touch /file 2>/dev/null || { echo "the root can be written" >&2; exit 1; }
podman exec --workdir /app "$ours-superlink" flwr run . here --stream --run-config "${KEYS:-num-rounds=2}
    algorithm='ross' beside='' transport='direct' num-nodes=2 num-agents=2 topology='ring' attackers=0 evaluate-every=2
    phase-timeout=300.0 results='/state/results'" 2>&1 | tee "$work/run.log" | grep -v "^ *$"
grep -q "Result" "$work/run.log"
podman stats --no-stream --format '{{.Name}}: {{.MemUsage}}' "${names[@]/#/$ours-}" || true
