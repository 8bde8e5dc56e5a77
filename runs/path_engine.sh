#!/usr/bin/env bash
# The path engine's tables: guarantee, cost, path_cost, quality, starts, batch and fixed_weight. DATA is the folder that holds
# photos/cbsd68 and fashion. About three hours on two cores; cost, quality, starts and fixed_weight go on where they were stopped, so give
# another OUT than docs/results to measure everything again.
set -euo pipefail
data=${1:?usage: runs/path_engine.sh DATA [OUT]}
here=$(dirname "$0")
out=(--out "${2:-docs/results}")
pictures=("$data/photos/cbsd68" "$data/fashion/t10k-images-idx3-ubyte.gz")
export OMP_NUM_THREADS=1
(
  python "$here/cost.py" "${pictures[@]}" "${out[@]}"
  python "$here/batch.py" "${pictures[@]}" "${out[@]}"
) &
other=$!
python "$here/quality.py" "${pictures[@]}" "${out[@]}"
python "$here/starts.py" "${pictures[@]}" "${out[@]}"
python "$here/fixed_weight.py" "${pictures[@]}" "${out[@]}"
python "$here/path_cost.py" "${pictures[@]}" "${out[@]}"
python "$here/guarantee.py" "${out[@]}"
wait "$other"  # with its number: a bare wait forgets how it ended
