#!/usr/bin/env bash
# The bundled prior "photos": DATA is a folder with the 400 training and test pictures of BSDS500. First its density
# alone, then on from there with noise that the flow is told. The bundled one took 3 and 1.7 hours of one busy CPU core.
set -euo pipefail
data=${1:?usage: runs/train_photos.sh DATA [OUT]}
out=${2:-out/photos}
about="400 photographs of BSDS500 (train and test), of which the last 20 are held out"
licence="research use only (the terms of BSDS500)"
aipo train "$data" --out "$out-density" --name photos --holdout 20 --crop 48 \
  --flow.any_size true --flow.hidden 96 --training.steps 8000 --training.batch 32 \
  --training.precision bfloat16 --training.validate_every 250 --about "$about" --licence "$licence"
aipo train "$data" --out "$out" --name photos --holdout 20 --crop 64 --initial "$out-density" \
  --flow.any_size true --flow.hidden 96 --flow.noise_levels true --training.told 0.5 \
  --training.told_range "[0.005,0.4]" --training.noised 0.17 --training.denoising 3 --training.steps 10500 \
  --training.batch 6 --training.learning_rate 5e-4 --training.warmup 100 --training.precision bfloat16 \
  --training.validate_every 250 --about "$about" --licence "$licence"
