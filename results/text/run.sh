#!/usr/bin/env bash
# Whose text teaches best? Policies from a weak and a strong start, on sums of two numbers. See ../text.md.
#   ./run.sh        LIMBECK="python -m limbeck" where it is not installed
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
LIMBECK=${LIMBECK:-limbeck}
here=$(dirname "$0")
common=(--data "arithmetic(digits=2, operations='+', train=2000, val=100, test=300)" --optimizer adamw --schedule cosine
  --warmup-epochs 1 --max-length 12 --max-new-tokens 6 --batch-size 32 --weight-decay 0.1 --answers 300 --select last
  --validate-epochs 10 --checkpoint-epochs 10)

train() { # NAME model epochs lr
  [ -f "runs/$1/result.json" ] || $LIMBECK train "${common[@]}" --model "$2" --epochs "$3" --lr "$4" --name "$1" --overwrite
}

train teacher 'llama(layers=2, width=128, heads=4)' 60 0.002
train weak 'llama(layers=1, width=64, heads=4)' 2 0.003
train strong 'llama(layers=1, width=64, heads=4)' 20 0.003
for start in weak strong; do
  resume=()
  [ -d "runs/skd-$start" ] && resume=(--resume)
  $LIMBECK compare --config "$here/skd-$start.yaml" "${resume[@]}"
done
