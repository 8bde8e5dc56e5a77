#!/usr/bin/env bash
# The bundled prior "fashion28": DATA is Fashion-MNIST's train-images-idx3-ubyte.gz. The bundled one took 48 minutes of one busy
# CPU core with bfloat16 units.
set -euo pipefail
data=${1:?usage: runs/train_fashion28.sh DATA [OUT]}
aipo train "$data" --out "${2:-out/fashion28}" --name fashion28 --holdout 1000 --flips false \
  --flow.levels 2 --flow.hidden 96 --training.steps 9000 --training.batch 64 \
  --training.precision bfloat16 --training.validate_every 500 \
  --about "Fashion-MNIST, 60,000 training pictures, of which the last 1,000 are held out" \
  --licence "free (Fashion-MNIST is under the MIT licence)"
