#!/bin/bash
# Training of a video autoencoder on several nodes of a Slurm cluster, one msrun on each.
#
#   sbatch --nodes 2 scripts/slurm/train_vae.sh outputs/video_dc_ae \
#       --config configs/vae/train/video_dc_ae.yaml --dataset.data_path /data/videos
#
# First the output_path, on a disk that all nodes see, then settings of scripts/train_vae.py. Submit
# it from the checkout. Requeued or submitted again, the run goes on from its newest checkpoint.
# DEVICES_PER_NODE (8) and MASTER_PORT (8118) may be set in the environment.
#SBATCH --job-name=train_vae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
output=${1:?give the output_path first, then settings of scripts/train_vae.py}
shift
devices=${DEVICES_PER_NODE:-8}
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
resume=()
if [ -f "$output/config.yaml" ]; then
    resume=(--resume=true)
fi
# Each node fills in its own number; all else is the same on all of them.
node='exec msrun --worker_num="$1" --local_worker_num="$2" --node_rank="$SLURM_NODEID" \
    --master_addr="$3" --master_port="$4" --join=True \
    --log_dir="outputs/msrun/$SLURM_JOB_ID/$SLURM_NODEID" "${@:5}"'
srun --kill-on-bad-exit=1 bash -c "$node" node \
    "$((devices * SLURM_JOB_NUM_NODES))" "$devices" "${hosts[0]}" "${MASTER_PORT:-8118}" \
    scripts/train_vae.py --output_path "$output" "${resume[@]}" "$@"
