#!/usr/bin/env bash
# The bundled prior "photos": DATA is a folder with the 400 training and test pictures of BSDS500.
set -euo pipefail
data=${1:?usage: runs/train_photos.sh DATA [OUT]}
aipo train "$data" --out "${2:-out/photos}" --name photos --holdout 20 --crop 48 \
  --flow.any_size true --flow.hidden 96 --training.steps 8000 --training.batch 32 \
  --training.precision bfloat16 --training.validate_every 250 \
  --about "400 photographs of BSDS500 (train and test), of which the last 20 are held out" \
  --licence "research use only (the terms of BSDS500)"
