#!/usr/bin/env bash
# Start a whole deployment on this machine: certificates, keys, a SuperLink that admits only registered SuperNodes, and
# four SuperNodes, all with TLS. Then run agents on it, show the result, and stop everything that was started.
#
#   deploy/local.sh                                    the methods of the first run, agents talking directly
#   deploy/local.sh "num-rounds=3 transport='relay'"   other keys; `ross-flwr config` lists them
#   APP=my-app deploy/local.sh                         an app that `ross-flwr new` wrote, or any other
#   deploy/local.sh shell                              a shell instead of a run, for `flwr run . here --stream`
#   NODES=8 WORK=/some/folder deploy/local.sh          more nodes; where logs, keys and states go [a temporary
#                                                      folder, of which logs and results stay]
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
    find "$work" -mindepth 1 -maxdepth 1 ! -name results ! -name "*.log" -exec rm -rf {} +
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
    fail "$what did not start"
}

fail() { # fail WHAT: say what went wrong, and end
    tail -n 20 "$work"/*.log >&2
    printf "%s\n" "$1" "The ends of the logs are above, and the whole of them is in $work" >&2
    exit 1
}

plain() { # plain: take colours and what stands before a line out of Flower's log
    sed -uE 's/\x1b\[[0-9;]*m//g; s/^INFO *: {0,6}//; s/^(WARNING|ERROR) *:[ \t]*(├──> |└──> )?/\1: /'
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

mapfile -t names < <(seq -f "agent-%g" "$nodes")
echo "Starting a SuperLink and $nodes SuperNodes; their logs are in $work"
{ ross-flwr certs init --in "$certs" && ross-flwr certs issue superlink "${names[@]}" --host 127.0.0.1 --in "$certs"; } \
    >"$work/certs.log" 2>&1 || fail "the certificates were not made"

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
    flwr supernode register "$certs/agent-$k/auth.pub" here --name "agent-$k" >>"$work/register.log" 2>&1 ||
        fail "agent-$k was not registered"
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
patience=20.0 results="$work/results"
[[ $keys != *transport=[\"\']@(relay|hybrid)* ]] || patience=120.0 # for each exchange, every node starts a process
given="(^| )results=[\"']([^\"']*)"
[[ ! $keys =~ $given ]] || results=${BASH_REMATCH[2]/#\~/$HOME}
config=$keys
for default in "num-nodes=$nodes" "num-agents=$nodes" 'topology="ring"' "attackers=1" "num-rounds=40" "evaluate-every=10" \
    'transport="direct"' "phase-timeout=$patience" "results=\"$results\""; do
    key=${default%%=*} # Flower refuses keys that the app does not have
    [[ " $keys" == *" $key="* ]] || ! grep -q "^$key = " "$app/pyproject.toml" || config="$config $default"
done
echo "+ flwr run . here --stream --run-config ${config@Q}"
{ PYTHONUNBUFFERED=1 flwr run "$app" here --stream --run-config "$config" 2>&1 | tee "$work/run.log" | plain |
    grep --line-buffered -aoE "(\[ROUND|algorithm: ).*|^(WARNING|ERROR).*"; } &
started+=($!)
wait $! || true
said=$(plain <"$work/run.log")
[[ $(flwr list here --format json) == *'"finished:completed"'* ]] ||
    fail "the run did not end well: $(grep -aE '^[A-Za-z_.]+Error: ' <<<"$said" | tail -n 1)"
sed -n '/\bResult\b/,$p' <<<"$said" | grep -a . || sed -n '/Final results:/,$p' <<<"$said"
[ -e "$results" ] && echo "The results are in $results" ||
    echo "The app kept no results (its pyproject.toml has no key results); what it said is in $work/run.log"
