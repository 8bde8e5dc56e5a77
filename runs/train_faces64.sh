#!/usr/bin/env bash
# The bundled prior "faces64": DATA is a folder of tars with aligned 64 × 64 face crops of CelebA. The first
# training, of clean pictures, took 105 minutes of one CPU core with bfloat16 units; the second, of noisy ones,
# 115 minutes of one without, beside other work.
set -euo pipefail
data=${1:?usage: runs/train_faces64.sh DATA [OUT]}
out=${2:-out/faces64}
about="CelebA, 23,134 aligned face crops; the last 1,006 of the folder are held out"
licence="research use only (the terms of CelebA: non-commercial research)"
aipo train "$data" --out "$out-clean" --name faces64 --holdout 1006 \
  --flow.levels 4 --flow.hidden 96 --training.steps 12000 --training.batch 16 \
  --training.precision bfloat16 --training.validate_every 250 --about "$about" --licence "$licence"
aipo train "$data" --out "$out" --name faces64 --holdout 1006 --initial "$out-clean" \
  --zoomed 0.4 --zoom_range "[0.8,1]" --flow.levels 4 --flow.hidden 96 \
  --flow.noise_levels true --flow.clean_apart true --training.told 1 --training.noised 0 \
  --training.told_range "[0.005,0.4]" --training.denoising 3 --training.batch 6 --training.steps 4750 \
  --training.learning_rate 5e-4 --training.warmup 100 --training.validate_every 250 \
  --about "$about" --licence "$licence"
