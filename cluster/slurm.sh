#!/usr/bin/env bash
#SBATCH --job-name=sketchynet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=sketchynet-%j.log
# A Ray cluster inside a Slurm job, and one run on it:
#     sbatch cluster/slurm.sh RECIPE --workers 8 --gpu --data /shared/data --output /shared/runs/first
# The arguments are those of `sketchynet train`; --output lets a job that Slurm puts back into the queue go on with
# its run. SKETCHYNET_ENV names an environment in which the package is installed (default: ~/sketchynet-env), on
# storage that all nodes share.
set -euo pipefail

environment=${SKETCHYNET_ENV:-$HOME/sketchynet-env}
if [ ! -x "$environment/bin/ray" ]; then
  echo "no Ray in $environment: install sketchynet[all] there, or set SKETCHYNET_ENV" >&2
  exit 2
fi
export PATH="$environment/bin:$PATH" RAY_USAGE_STATS_ENABLED=0
# Under sbatch, Slurm runs a copy of this file elsewhere: the entry point is found from where it was submitted.
entry=${SLURM_SUBMIT_DIR:-.}/cluster/train.py

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
# A port of the job's own, so that two jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 20000))
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
start=(ray start --block --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

srun --nodes=1 --ntasks=1 --nodelist="$head" \
  "${start[@]}" --head --node-ip-address="$address" --port="$port" --include-dashboard=false &
if [ "${#nodes[@]}" -gt 1 ]; then
  others=$(IFS=,; echo "${nodes[*]:1}")
  srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --nodelist="$others" \
    "${start[@]}" --address="$address:$port" &
fi
# The nodes of Ray end with the job's steps, however this script ends.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

export RAY_ADDRESS="$address:$port"
for _ in $(seq 60); do
  ray status >/dev/null 2>&1 && break
  sleep 2
done
ray status >/dev/null || { echo "Ray did not come up at $RAY_ADDRESS within two minutes" >&2; exit 1; }

# Workers wait for nodes that join later. A job that is queued again goes on with its run.
python "$entry" "$@" --or-resume
