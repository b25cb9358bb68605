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
common=(--data cifar100 --data-dir "$DATA" --val-fraction 0.04 --student resnet8 --batch-size 32 --schedule cosine --nesterov --select last
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
  compare ckd-budget --epochs 16 --teacher "$teacher" --teacher-budget 2500 --objectives "kd, rkd, ckd, ckd(bias_weight=0.1), ckd(n=3)"
}

ces() {
  if [ ! -f runs/ces-assistant/result.json ]; then
    $LIMBECK distill "${common[@]/resnet8/resnet14}" --train-limit 10000 --epochs 8 --teacher "$teacher" --objective kd --name ces-assistant \
      $([ -d runs/ces-assistant ] && echo --resume) ${EXTRA:-}
  fi
  local experts="runs/ces-assistant, $teacher"
  compare ces-routed "${usual[@]}" --teacher "routed($experts)" --objectives kd
  compare ces-random "${usual[@]}" --teacher "routed($experts, order='random')" --objectives kd
  compare ces-reversed "${usual[@]}" --teacher "routed($experts, order='reversed')" --objectives kd
  compare ces-chain "${usual[@]}" --teacher runs/ces-assistant --objectives kd
}

rtk() {
  compare rtk "${usual[@]}" --teacher "$teacher" --objectives "afd, rtk, ce + 200*rtk(attention='uniform'), ce + 200*rtk(attention='diagonal')"
}

nine() { # kd stands in base
  compare nine "${usual[@]}" --teacher "$teacher" --objectives "ce(label_smoothing=0.1), at, sp, rkd, fitnet, ce + 50*fsp(init_epochs=2), bss, dml, one"
}

infoflow() { # without labels, judged by retrieval; the weights of the layers between have the same mean in three of these
  local images=(--data cifar100 --data-dir "$DATA" --val-fraction 0.04 --train-limit 10000 --batch-size 128 --optimizer adamw --lr 0.001
    --schedule cosine --select last --epochs 12 --checkpoint-epochs 1 --validate-epochs 12)
  local wide='convnet(widths=[16, 32, 64])' kinds="infoflow, infoflow(layers='last'), infoflow(layers='last') + 27*infoflow(layers='intermediate'), \
infoflow(layers='last') + 55*after(6)*infoflow(layers='intermediate')"
  if [ ! -f runs/flow-labels/result.json ]; then
    $LIMBECK train "${images[@]}" --model "$wide" --name flow-labels $([ -d runs/flow-labels ] && echo --resume) ${EXTRA:-}
  fi
  if [ ! -f runs/flow-auxiliary/result.json ]; then
    $LIMBECK distill "${images[@]}" --teacher "$teacher" --student "$wide@runs/flow-labels/student.safetensors" \
      --objective infoflow_assistant --name flow-auxiliary $([ -d runs/flow-auxiliary ] && echo --resume) ${EXTRA:-}
  fi
  flow flow-auxiliary runs/flow-auxiliary "$kinds"
  flow flow-direct "$teacher" "infoflow, infoflow(layers='last'), kd(temperature=2), ce"
}

flow() { # NAME teacher objectives; an auxiliary that saw no labels has forgotten its classifier, and is read by its layers alone
  if [ ! -f "runs/$1-students/table.json" ]; then
    $LIMBECK compare "${images[@]}" --teacher "$2" --allow-weak-teacher --student 'convnet(widths=[8, 16, 32])' --objectives "$3" --seeds "${SEEDS:-3}" --no-baselines \
      --name "$1-students" $([ -d "runs/$1-students" ] && echo --resume) ${EXTRA:-}
  fi
  [ -f "runs/$1-students/evaluation.json" ] ||
    $LIMBECK evaluate "runs/$1-students" --parts database --output "runs/$1-students/evaluation.json"
}

robustness() { # of students that r2kd and base have left
  [ -f runs/robustness.json ] ||
    $LIMBECK evaluate runs/base runs/r2kd-single runs/r2kd-pruned --parts robustness --test-limit 1000 --output runs/robustness.json
}

for system in "${@:-ces r2kd base robustness ckd infoflow rtk nine}"; do
  for each in $system; do "$each"; done
done
