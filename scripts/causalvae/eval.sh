#!/usr/bin/env bash
# Measure generated videos against the originals with the call of Open-Sora-Plan's eval.sh.
# Any flag of scripts/evaluate.py can be added or overridden; flolpips also needs --pwcnet_path:
#   bash scripts/causalvae/eval.sh --real_video_dir A --generated_video_dir B --metric ssim
# The original's --sample_fps had no effect; here it would choose frames by time, so it is left out.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "$0")/../evaluate.py" \
    --protocol open_sora_plan \
    --batch_size 2 \
    --real_video_dir "${REAL_VIDEO_DIR:-../test_eval/release/origin}" \
    --generated_video_dir "${GENERATED_VIDEO_DIR:-../test_eval/release}" \
    --crop_size 256 \
    --resolution 256 \
    --num_frames 17 \
    --sample_rate 1 \
    --subset_size 100 \
    --metric psnr,ssim,lpips \
    "$@"
