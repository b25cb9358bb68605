#!/usr/bin/env bash
# Nine methods under label noise, imbalance and other gaps of capacity, on Fashion-MNIST at 16 px. See ../systems.md.
# Goes on where it was stopped.
#
#   ./run.sh [teachers noise imbalance gap]         LIMBECK="python -m limbeck" where it is not installed
# EXTRA shortens a rehearsal, as in EXTRA="--epochs 1 --train-limit 1600".
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
LIMBECK=${LIMBECK:-limbeck}
common=(--data fashion-mnist --image-size 16 --train-limit 1600 --test-limit 3000 --val-fraction 0.01 --batch-size 64
  --augment crop=2,flip --schedule cosine --nesterov --select last --checkpoint-epochs 1)
taught="kd, at, sp, rkd, fitnet, ce + 50*fsp(init_epochs=2), bss"
all="ce, ce(label_smoothing=0.1), $taught, dml, one"

teacher() { # NAME model then options
  local name=teacher-$1 model=$2
  shift 2
  if [ -f "runs/$name/result.json" ]; then return; fi
  local resume=()
  if [ -d "runs/$name" ]; then resume=(--resume); fi
  $LIMBECK train "${common[@]}" --model "$model" --epochs 16 --validate-epochs 8 --name "$name" "${resume[@]}" "$@" ${EXTRA:-}
}

compare() { # NAME teacher objectives then options
  local name=$1 teacher=runs/teacher-$2 objectives=$3
  shift 3
  if [ -f "runs/$name/table.json" ]; then return; fi
  local resume=()
  if [ -d "runs/$name" ]; then resume=(--resume); fi
  $LIMBECK compare "${common[@]}" --teacher "$teacher" --student resnet8 --objectives "$objectives" --seeds 3 --epochs 5 --validate-epochs 5 \
    --no-baselines --name "$name" "${resume[@]}" "$@" ${EXTRA:-}
}

teachers() { # each on the data that its students have
  teacher clean resnet20
  for share in 0.2 0.4 0.6; do teacher "noise-$share" resnet20 --label-noise "$share"; done
  for ratio in 10 50; do teacher "imbalance-$ratio" resnet20 --imbalance "$ratio"; done
  for model in resnet14 resnet32; do teacher "$model" "$model"; done
}

noise() {
  compare clean clean "$all"
  for share in 0.2 0.4 0.6; do compare "noise-$share" "noise-$share" "$all" --label-noise "$share"; done
  compare noise-0.4-clean-teacher clean "$taught" --label-noise 0.4
}

imbalance() {
  for ratio in 10 50; do compare "imbalance-$ratio" "imbalance-$ratio" "$all" --imbalance "$ratio"; done
}

gap() { # resnet20 is in clean
  for model in resnet14 resnet32; do compare "$model" "$model" "$taught"; done
}

for part in "${@:-teachers noise imbalance gap}"; do
  for each in $part; do "$each"; done
done
