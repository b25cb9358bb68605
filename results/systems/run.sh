#!/usr/bin/env bash
# Each system of the field beside its own controls, on 10,000 CIFAR-100 images and four epochs. Goes on where it was stopped.
#
#   DATA=folder TEACHER=runs/cifar100-resnet20-teacher/student.safetensors ./run.sh [system ...]
# EXTRA shortens a rehearsal, as in SEEDS=1 EXTRA="--epochs 1 --train-limit 640".
set -euo pipefail
: "${DATA:?a folder with cifar100-train.npz and cifar100-test.npz}" "${TEACHER:?the weights of the resnet20 that teaches}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
LIMBECK=${LIMBECK:-limbeck}
teacher="resnet20@$TEACHER"
common=(--data cifar100 --data-dir "$DATA" --val-fraction 0.04 --student resnet8 --schedule cosine --nesterov --select last
  --checkpoint-epochs 1 --validate-epochs 2)
usual=(--train-limit 10000 --epochs 4)

compare() { # NAME then options
  local name=$1
  shift
  if [ -f "runs/$name/table.json" ]; then return; fi
  local resume=()
  if [ -d "runs/$name" ]; then resume=(--resume); fi
  $LIMBECK compare "${common[@]}" --seeds "${SEEDS:-3}" --no-baselines --name "$name" "${resume[@]}" "$@" ${EXTRA:-}
}

base() {
  compare base "${usual[@]}" --teacher "$teacher" --objectives "ce, kd"
}

r2kd() {
  compare r2kd-single "${usual[@]}" --teacher "$teacher" --objectives "r2kd, ce + r2kd(rank_weight=0), ce + r2kd(rank='paper')"
  compare r2kd-pruned "${usual[@]}" --teacher "pruned_mix($teacher)" --objectives "r2kd, kd"
  compare r2kd-cutmix "${usual[@]}" --teacher "pruned_mix($teacher)" --augment "crop=4,flip | crop=4,flip,cutmix=1" \
    --objectives "ce(views='first') + 2*r2kd(), 0.1*ce(views='first') + 0.9*kd()"
}

ckd() { # as many steps as the others have
  compare ckd-budget --epochs 16 --teacher "$teacher" --teacher-budget 2500 --objectives "kd, rkd, dist, ckd, ckd(bias_weight=0.1), ckd(n=3)"
}

ces() {
  if [ ! -f runs/ces-assistant/result.json ]; then
    $LIMBECK distill "${common[@]/resnet8/resnet14}" "${usual[@]}" --teacher "$teacher" --objective kd --name ces-assistant \
      $([ -d runs/ces-assistant ] && echo --resume) ${EXTRA:-}
  fi
  local experts="runs/ces-assistant, $teacher"
  compare ces-routed "${usual[@]}" --teacher "routed($experts)" --objectives kd
  compare ces-random "${usual[@]}" --teacher "routed($experts, order='random')" --objectives kd
  compare ces-reversed "${usual[@]}" --teacher "routed($experts, order='reversed')" --objectives kd
  compare ces-mean "${usual[@]}" --teacher "mean($experts)" --objectives kd
  compare ces-chain "${usual[@]}" --teacher runs/ces-assistant --objectives kd
}

rtk() {
  compare rtk "${usual[@]}" --teacher "$teacher" --objectives "afd, ce + 200*afd(attention='uniform'), ce + 200*afd(attention='diagonal'), \
rtk, ce + 200*rtk(attention='uniform'), ce + 200*rtk(attention='diagonal')"
}

nine() { # kd stands in base
  compare nine "${usual[@]}" --teacher "$teacher" --objectives "ce(label_smoothing=0.1), at, sp, rkd, fitnet, fsp, bss, dml, one"
}

infoflow() {
  compare infoflow "${usual[@]}" --teacher "$teacher" --objectives "infoflow+ce, ce + infoflow(layers='last'), ce + infoflow(), \
ce + infoflow(layers='last') + after(2)*infoflow(layers='intermediate')"
}

for system in "${@:-base ces r2kd ckd infoflow rtk nine}"; do
  for each in $system; do "$each"; done
done
