#!/usr/bin/env bash
# Two Ray nodes on this machine, closed to everybody else: to try what the other files of this folder do on many machines.
#
#   cluster/local.sh start         a head and a second node; say what to type next
#   eval "$(cluster/local.sh env)" this shell's commands find the cluster and its token
#   cluster/local.sh status        nodes, and what is free
#   cluster/local.sh stop          both nodes end, with everything that runs on them
#
# Every port is bound to 127.0.0.1, the dashboard too. The token is made anew at each start and lies in a file that only
# you can read. Shared storage: both nodes see this disk. Forgotten, the two nodes cost about 1 GiB of memory and a few
# per cent of a core; `stop` ends them, and so does a restart of the machine.
#
# CABRUCA_CLUSTER_DIR (~/.cabruca/cluster), CABRUCA_CLUSTER_PORT (6379), CABRUCA_DASHBOARD_PORT (8265),
# CABRUCA_METRICS_PORT (8080; the second node's is one higher), CABRUCA_NODE_CPUS (half of the machine's, of each node),
# PYTHON (python: the one that has cabruca).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${CABRUCA_CLUSTER_DIR:-$HOME/.cabruca/cluster}
port=${CABRUCA_CLUSTER_PORT:-6379}
dashboard_port=${CABRUCA_DASHBOARD_PORT:-8265}
metrics_port=${CABRUCA_METRICS_PORT:-8080}
python=${PYTHON:-python}
second=/tmp/ray_second_$port # its own: two nodes of one folder would unpack a job's files over each other; short: sockets

settings() {
  cat <<EOF
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH='$folder/token'
export RAY_ADDRESS=127.0.0.1:$port
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard_port
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
export RAY_USAGE_STATS_ENABLED=0
EOF
  if [ "$(uname)" = Linux ]; then echo "export GLOO_SOCKET_IFNAME=lo"; fi
}

ray() { "$python" -m ray.scripts.scripts "$@"; }

alive() { [ -f "$folder/$1.pid" ] && kill -0 "$(cat "$folder/$1.pid")" 2>/dev/null; }

free_port() { # what is taken would end a node in a line that nobody finds
  if "$python" -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$1" 2>/dev/null; then
    echo "local.sh: port $1 is taken; set $2 to another" >&2
    exit 2
  fi
}

nodes() { ray status 2>/dev/null | grep -c '^ 1 node_' || true; }

wait_for_nodes() {
  local deadline=$((SECONDS + 90))
  while [ "$(nodes)" -lt "$1" ]; do
    if [ "$SECONDS" -gt "$deadline" ] || ! alive "$2"; then
      echo "local.sh: the $2 node did not start; its last words ($folder/$2.log):" >&2
      tail -n 5 "$folder/$2.log" >&2
      stop
      exit 2
    fi
    sleep 0.5
  done
}

start() {
  if alive head; then
    echo "local.sh: a cluster is there already ($folder); cluster/local.sh stop ends it" >&2
    exit 2
  fi
  free_port "$port" CABRUCA_CLUSTER_PORT
  free_port "$dashboard_port" CABRUCA_DASHBOARD_PORT
  free_port "$metrics_port" CABRUCA_METRICS_PORT
  free_port $((metrics_port + 1)) CABRUCA_METRICS_PORT
  mkdir -p "$folder"
  chmod 700 "$folder"
  (umask 077 && "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$folder/token")
  eval "$(settings)"
  local cores
  cores=$("$python" -c 'import os; print(max(1, (os.cpu_count() or 2) // 2))')
  local common=(--block --node-ip-address=127.0.0.1 --num-cpus="${CABRUCA_NODE_CPUS:-$cores}" --disable-usage-stats)
  env -u RAY_ADDRESS nohup "$python" -m ray.scripts.scripts start --head --port="$port" --dashboard-host=127.0.0.1 \
    --dashboard-port="$dashboard_port" --metrics-export-port="$metrics_port" "${common[@]}" \
    >"$folder/head.log" 2>&1 </dev/null &
  echo $! >"$folder/head.pid"
  wait_for_nodes 1 head
  nohup "$python" "$here/second_node.py" start --address="127.0.0.1:$port" \
    --metrics-export-port=$((metrics_port + 1)) --temp-dir="$second" "${common[@]}" >"$folder/second.log" 2>&1 </dev/null &
  echo $! >"$folder/second.pid"
  wait_for_nodes 2 second
  cat <<EOF
2 nodes at 127.0.0.1:$port
dashboard  http://127.0.0.1:$dashboard_port (token: cat $folder/token)
use it     eval "\$($0 env)"
stop it    $0 stop
EOF
}

stop() {
  local node
  for node in second head; do
    if alive "$node"; then
      kill "$(cat "$folder/$node.pid")" # ray start --block ends the processes of its node
      while alive "$node"; do sleep 0.2; done
    fi
    rm -f "$folder/$node.pid"
  done
  rm -f "$folder/token"
  rm -rf "$second"
}

case "${1:-}" in
  start) start ;;
  env) settings ;;
  status) eval "$(settings)" && ray status ;;
  stop) stop && echo "stopped" ;;
  *) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' && exit 2 ;;
esac
