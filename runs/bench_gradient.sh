#!/usr/bin/env bash
# What a gradient of the flow costs, beside normflows, FrEIA and nflows (pip install "aipo[flows]"). About five minutes;
# nothing else should run on the machine. [OUT]
set -euo pipefail
python "$(dirname "$0")/bench_gradient.py" --out "${1:-docs/results}"
