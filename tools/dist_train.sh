#!/usr/bin/env bash
# Train with several processes on this machine: tools/dist_train.sh CONFIG NGPUS [flags of tools/train.py]
set -euo pipefail
config=$1
processes=$2
shift 2
exec "${PYTHON:-python}" -m torch.distributed.run --nproc_per_node="$processes" "$(dirname "$0")/train.py" \
    "$config" --launcher pytorch "$@"
