#!/usr/bin/env bash
# Start a whole deployment on this machine: certificates, keys, a SuperLink that admits only registered SuperNodes, and
# four SuperNodes, all with TLS. Then run agents on it, show the result, and stop everything that was started.
#
#   deploy/local.sh                                    the methods of the first run, agents talking directly
#   deploy/local.sh "num-rounds=3 transport='relay'"   other keys; `ross-flwr config` lists them
#   APP=my-app deploy/local.sh                         an app that `ross-flwr new` wrote, or any other
#   deploy/local.sh shell                              a shell instead of a run, for `flwr run . here --stream`
#   NODES=8 WORK=/some/folder deploy/local.sh          more nodes; where logs, keys and states go [a temporary
#                                                      folder, of which the results stay]
set -euo pipefail
app=$(cd "${APP:-$(dirname "$0")/..}" && pwd)
nodes=${NODES:-4}
keys=${1:-}
work=${WORK:-$(mktemp -d)}
if [[ $work == *[\"\\]* ]]; then
    echo "WORK = $work holds a double quote or a backslash, which Flower's configuration cannot: use another folder" >&2
    exit 1
fi
mkdir -p "$work"
export FLWR_HOME="$work/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
mkdir -p "$FLWR_HOME"

started=()
stop() { # stop all that was started, and what Flower started in turn, which writes into the folder too
    trap - EXIT
    trap "" INT TERM # or a second one would end this before all is stopped
    local all
    mapfile -t all < <(tree "${started[@]}")
    kill "${all[@]}" 2>/dev/null || true
    for _ in $(seq 60); do
        running "${all[@]}" || break
        sleep 0.5
    done
    kill -KILL "${all[@]}" 2>/dev/null || true
    [ -n "${WORK:-}" ] && return
    find "$work" -mindepth 1 -maxdepth 1 ! -name results -exec rm -rf {} + # the run has said that its results are there
    rmdir "$work" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT TERM

tree() { # tree PID…: print these processes and all their descendants
    local pid
    for pid; do
        echo "$pid"
        tree $(pgrep -P "$pid")
    done
}

running() { # running PID…: succeed if one of them is still running
    ps -o stat= -p "$(IFS=,; echo "$*")" | grep -qv "^Z"
}

start() { # start LOG COMMAND…: run it in the background
    local log="$work/$1.log"
    shift
    "$@" >"$log" 2>&1 &
    started+=($!)
    echo "$!" >"${log%.log}.pid"
}

wait_for() { # wait_for WHAT COMMAND…: wait until the command succeeds, at most three minutes, while what was started runs
    local what=$1 end=$((SECONDS + 180))
    shift
    while ((SECONDS < end)) && running "${started[-1]}"; do
        timeout --foreground 15 "$@" >/dev/null 2>&1 && return # another program on the port may accept and say nothing
        sleep 0.5
    done
    echo "$what did not start. The logs:" >&2
    tail -n 20 "$work"/*.log >&2
    exit 1
}

free_ports() { # free_ports COUNT: print different free ports, one per line
    python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
for each in sockets:
    print(each.getsockname()[1])
PYTHON
}

mapfile -t ports < <(free_ports $((2 * nodes + 2)))
link="127.0.0.1:${ports[0]}"
fleet=$link
fleet_api=()
if [[ $(flower-superlink --version) == *" 1.39."* ]]; then # its SuperNodes call a separate port, over gRPC
    fleet="127.0.0.1:${ports[-1]}"
    fleet_api=(--fleet-api-address "$fleet")
fi
certs="$work/certs"

ross-flwr certs init --in "$certs"
mapfile -t names < <(seq -f "agent-%g" "$nodes")
ross-flwr certs issue superlink "${names[@]}" --host 127.0.0.1 --in "$certs"

start superlink flower-superlink --host 127.0.0.1 --port "${ports[0]}" ${fleet_api[@]+"${fleet_api[@]}"} \
    --enable-supernode-auth --database "$work/superlink.db" \
    --ssl-ca-certfile "$certs/ca.pem" --ssl-certfile "$certs/superlink/node.pem" \
    --ssl-keyfile "$certs/superlink/node.key" --disable-runtime-dependency-installation
cat >"$FLWR_HOME/config.toml" <<TOML
[superlink]
default = "here"

[superlink.here]
address = "$link"
root-certificates = "$certs/ca.pem"
TOML
wait_for "the SuperLink" flwr supernode list here
for ((k = 1; k <= nodes; k++)); do
    flwr supernode register "$certs/agent-$k/auth.pub" here --name "agent-$k" >"$work/register-$k.log" 2>&1 ||
        { cat "$work/register-$k.log" >&2; exit 1; }
    start "agent-$k" flower-supernode --superlink "$fleet" --root-certificates "$certs/ca.pem" \
        --auth-supernode-private-key "$certs/agent-$k/auth.key" --port "${ports[$k]}" \
        --node-config "peer-address=\"127.0.0.1:${ports[$((nodes + k))]}\" peer-certs=\"$certs/agent-$k\" \
partition-id=$((k - 1)) num-partitions=$nodes"
done

if [ "$keys" = shell ]; then
    echo "The deployment runs until you leave this shell. To start a run of three rounds, node to node:
  flwr run . here --stream --run-config \"num-nodes=$nodes num-agents=$nodes topology='ring' num-rounds=3 beside='' transport='direct'\""
    cd "$app"
    bash || true
    exit
fi
config=$keys
for default in "num-nodes=$nodes" "num-agents=$nodes" "topology='ring'" "attackers=1" "num-rounds=40" "evaluate-every=10" \
    "transport='direct'" "phase-timeout=20.0" "results=\"$work/results\""; do
    key=${default%%=*} # Flower refuses keys that the app does not have
    [[ " $keys" == *" $key="* ]] || ! grep -q "^$key = " "$app/pyproject.toml" || config="$config $default"
done
echo "+ flwr run . here --stream --run-config \"$config\""
{ flwr run "$app" here --stream --run-config "$config" 2>&1 | tee "$work/run.log" | grep --line-buffered -v "^ *$"; } &
started+=($!)
wait $! || true
grep -q "Result" "$work/run.log" || { tail -n 30 "$work"/superlink.log "$work"/agent-*.log >&2; exit 1; }
