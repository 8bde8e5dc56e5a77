#!/usr/bin/env bash
# The path engine's tables: guarantee, cost, path_cost, quality, starts and batch in docs/results. DATA is the folder
# that holds photos/cbsd68 and fashion. About an hour on two cores; cost and quality go on where they were stopped.
set -euo pipefail
data=${1:?usage: runs/path_engine.sh DATA}
here=$(dirname "$0")
pictures=("$data/photos/cbsd68" "$data/fashion/t10k-images-idx3-ubyte.gz")
export OMP_NUM_THREADS=1
(
  python "$here/cost.py" "${pictures[@]}"
  python "$here/batch.py" "${pictures[@]}"
) &
python "$here/quality.py" "${pictures[@]}"
python "$here/starts.py" "${pictures[@]}"
python "$here/path_cost.py" "${pictures[@]}"
python "$here/guarantee.py"
wait
