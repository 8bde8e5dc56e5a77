#!/usr/bin/env bash
# The bundled prior "faces64": DATA is a folder of tars with aligned 64 × 64 face crops of CelebA. The bundled one took 105 minutes of
# one CPU core with bfloat16 units.
set -euo pipefail
data=${1:?usage: runs/train_faces64.sh DATA [OUT]}
aipo train "$data" --out "${2:-out/faces64}" --name faces64 --holdout 1006 \
  --flow.levels 4 --flow.hidden 96 --training.steps 12000 --training.batch 16 \
  --training.precision bfloat16 --training.validate_every 250 \
  --about "CelebA, 23,134 aligned face crops; the last 1,006 of the folder are held out" \
  --licence "research use only (the terms of CelebA: non-commercial research)"
