#!/usr/bin/env bash
# MixKD beside its controls where 2, 10 and 100 % of SST-2's labels are there. See ../text.md. Goes on where it was stopped.
#
#   SST2=folder MINILM=folder ./mixkd.sh [share ...]       LIMBECK="python -m limbeck" where it is not installed
# SST2 has GLUE's train.tsv and dev.tsv; dev is the test here. Of MINILM, a folder of all-MiniLM-L6-v2, the tokenizer alone is used.
set -euo pipefail
: "${SST2:?the folder of train.tsv and dev.tsv}" "${MINILM:?a folder with a tokenizer}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
LIMBECK=${LIMBECK:-limbeck}
usual=(--data sst2 --tokenizer "hf:$MINILM" --val-fraction 0.02 --max-length 64 --batch-size 32 --optimizer adamw --weight-decay 0.01 --clip-norm 1 --schedule cosine
  --select last)

mkdir -p sst2
[ -f sst2/train.tsv ] || cp "$SST2/train.tsv" sst2/train.tsv
[ -f sst2/test.tsv ] || cp "$SST2/dev.tsv" sst2/test.tsv
if [ ! -f runs/mixkd-teacher/result.json ]; then
  $LIMBECK train "${usual[@]}" --model 'bert(layers=4, width=128, heads=4)' --batch-size 64 --epochs 2 --lr 0.001 --warmup-epochs 0.2 --name mixkd-teacher \
    $([ -d runs/mixkd-teacher ] && echo --resume)
fi

compare() { # NAME then options
  local name=$1
  shift
  if [ -f "runs/$name/table.json" ]; then return; fi
  $LIMBECK compare "${usual[@]}" --teacher runs/mixkd-teacher --student 'bert(layers=2, width=64, heads=2)' --lr 0.001 --warmup-epochs 0.2 --seeds "${SEEDS:-3}" \
    --no-baselines --name "$name" $([ -d "runs/$name" ] && echo --resume) "$@"
}

study() { # NAME texts epochs: at equal steps; those of two views see as many texts a step, and ask the teacher as often, as each other
  local size=(--train-limit "$2" --epochs "$3" --validate-epochs "$3" --checkpoint-epochs 1)
  compare "mixkd-$1-plain" "${size[@]}" --augment none --objectives "ce, ce + kl"
  compare "mixkd-$1-twice" "${size[@]}" --augment 'none | none' --objectives "ce + kl"
  compare "mixkd-$1-mixed" "${size[@]}" --augment 'none | mixup=0.4' --objectives \
    "ce(views='first') + ce(views='mixed') + 2*kl, ce(views='first') + 2*kl, ce(views='first') + ce(views='mixed')"
  compare "mixkd-$1-targets" "${size[@]}" --augment 'none | mixup=0.4' --mixed-targets --objectives "ce(views='first') + ce(views='mixed') + 2*kl"
}

for share in ${@:-2 10 100}; do
  case $share in
    2) study 2 1347 12 ;;
    10) study 10 6735 4 ;;
    100) study 100 67349 1 ;;
    *) echo "no share $share: 2, 10 or 100" >&2; exit 2 ;;
  esac
done
