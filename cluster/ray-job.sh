#!/usr/bin/env bash
# Hand a train or a tune to a Ray cluster and follow it: this shell may end, the job goes on.
#
#   cluster/ray-job.sh train --config configs/training_config.yaml --experiment-name plot_7 --workers 8
#   cluster/ray-job.sh tune --study experiments/studies/light_lr.yaml
#
# RAY_API_SERVER_ADDRESS: the dashboard, through the tunnel or port-forward (default http://127.0.0.1:8265).
# Token: RAY_AUTH_TOKEN, or its file in RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token; the cluster's, copied from its head.
# CABRUCA_OUTPUT_DIR: absolute folder on storage that all nodes share (needed: the job's own folder is thrown away).
# CABRUCA_STORAGE_PATH: instead of shared disks, where run folders and studies are copied (s3://bucket/runs).
# CABRUCA_JOB_ID: the job's name, to find it again. CABRUCA_JOB_ENV: names of variables to hand on, such as "MLFLOW_TRACKING_URI";
#   no secrets: they can be read in the dashboard. Credentials belong to the nodes (roles, mounted secrets).
#
# The folder that you stand in is sent along (configurations, not data: paths of data are those of the nodes); cabruca
# itself is installed on the nodes (Dockerfile).
# Ctrl-C stops following. Stop the job itself: ray job stop ID (the run saves; --resume auto goes on).
# Forgotten: the job ends by itself, the cluster does not: it costs until you stop it.
set -euo pipefail

if [ $# -lt 2 ] || { [ "$1" != train ] && [ "$1" != tune ]; }; then
  sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
  exit 2
fi
output_dir=${CABRUCA_OUTPUT_DIR:-}
if [ "${output_dir#/}" = "$output_dir" ]; then
  echo "ray-job.sh: CABRUCA_OUTPUT_DIR is '$output_dir'; set it to an absolute folder that all nodes share" >&2
  exit 2
fi

export RAY_AUTH_MODE=token
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
python=${PYTHON:-python}
id=${CABRUCA_JOB_ID:-cabruca_$1_$(date +%Y%m%d_%H%M%S)}

more=(--set "output_dir=$output_dir")
if [ -n "${CABRUCA_STORAGE_PATH:-}" ]; then more+=(--set "distributed.storage_path=$CABRUCA_STORAGE_PATH"); fi

runtime_env=$(
  "$python" - <<'END'
import json
import os

names = ["RAY_USAGE_STATS_ENABLED", *os.environ.get("CABRUCA_JOB_ENV", "").split()]
values = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_STOP_WAIT_TIME_S": "300", **{name: os.environ[name] for name in names if name in os.environ}}
print(json.dumps({
    "working_dir": ".",
    "excludes": [".git", ".venv", "/data", "/outputs", "/tests", "/cabruca", "*.tif", "*.pth"],
    "env_vars": values,
}))
END
)

echo "job $id at $RAY_API_SERVER_ADDRESS"
echo "  again   ray job logs --follow $id"
echo "  stop    ray job stop $id"
exec "$python" -m ray.scripts.scripts job submit --submission-id "$id" --runtime-env-json "$runtime_env" -- \
  python -m cabruca "$@" "${more[@]}"
