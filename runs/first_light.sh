#!/usr/bin/env bash
# The tables of docs/results/first_light.md: DATA is the folder that holds photos/cbsd68 and fashion.
set -euo pipefail
data=${1:?usage: runs/first_light.sh DATA}
python "$(dirname "$0")/first_light.py" "$data/photos/cbsd68" "$data/fashion/t10k-images-idx3-ubyte.gz"
