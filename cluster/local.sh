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
# CABRUCA_STOP_TIMEOUT_S (30: then a node that was asked to end is killed), PYTHON (python: the one that has cabruca).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${CABRUCA_CLUSTER_DIR:-$HOME/.cabruca/cluster}
port=${CABRUCA_CLUSTER_PORT:-6379}
dashboard_port=${CABRUCA_DASHBOARD_PORT:-8265}
metrics_port=${CABRUCA_METRICS_PORT:-8080}
python=${PYTHON:-python}
patience=${CABRUCA_STOP_TIMEOUT_S:-30}
second=$folder/second # a link to the second node's own folder: two nodes of one would unpack a job's files over each other

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

kill_all='
import contextlib, sys
import psutil
with contextlib.suppress(psutil.Error):
    node = psutil.Process(int(sys.argv[1]))
    for process in [node, *node.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            process.kill()
'

born() { # when a process that runs was started: a number alone may be another's by now
  if [ -d /proc/self ]; then
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
  else
    ps -o lstart= -p "$1" | tr -s ' ' _
  fi
}

wrote_down() { echo "$2 $(born "$2")" >"$folder/$1.pid"; }

alive() { # the process that start wrote down, and no other
  local pid began
  [ -f "$folder/$1.pid" ] && read -r pid began <"$folder/$1.pid" && [ -n "$began" ] && [ "$(born "$pid")" = "$began" ]
}

no_second_folder() {
  if [ -L "$second" ]; then rm -rf "$(readlink "$second")"; fi
  rm -f "$second"
}

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
  # Ray drains a node for 30 s before it ends; here both end, and nothing is left for their work to move to
  export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-5}
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
  wrote_down head $!
  wait_for_nodes 1 head
  no_second_folder
  local own
  own=$(mktemp -d /tmp/ray_XXXXXX) # ours alone, and short: a socket's path has at most 107 bytes
  ln -s "$own" "$second"
  nohup "$python" "$here/second_node.py" start --address="127.0.0.1:$port" \
    --metrics-export-port=$((metrics_port + 1)) --temp-dir="$own" "${common[@]}" >"$folder/second.log" 2>&1 </dev/null &
  wrote_down second $!
  wait_for_nodes 2 second
  cat <<EOF
2 nodes at 127.0.0.1:$port
dashboard  http://127.0.0.1:$dashboard_port (token: cat $folder/token)
use it     eval "\$($0 env)"
stop it    $0 stop
EOF
}

end() { # a node: it is asked, then killed; neither takes for ever
  alive "$1" || return 0
  local pid deadline
  read -r pid _ <"$folder/$1.pid"
  kill "$pid" 2>/dev/null || true # ray start --block ends the processes of its node
  deadline=$((SECONDS + patience))
  while alive "$1" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.2; done
  alive "$1" || return 0
  echo "local.sh: the $1 node (process $pid) did not end in $patience s; it is killed" >&2
  "$python" -c "$kill_all" "$pid" || true # its processes too: not all of them die with it
  deadline=$((SECONDS + 5))
  while alive "$1" && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.2; done
  alive "$1" || return 0
  echo "local.sh: process $pid is there still; end it yourself, then cluster/local.sh stop again" >&2
  return 1
}

stop() {
  local node left=0
  for node in second head; do
    if end "$node"; then rm -f "$folder/$node.pid"; else left=1; fi
  done
  [ "$left" -eq 0 ] || return 1
  rm -f "$folder/token"
  no_second_folder
}

case "${1:-}" in
  start) start ;;
  env) settings ;;
  status) eval "$(settings)" && ray status ;;
  stop) stop && echo "stopped" ;;
  *) sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' && exit 2 ;;
esac
