#!/usr/bin/env bash
# Whose text teaches best? Policies from a weak and a strong start, on sums of two numbers. See ../text.md. Goes on where it was stopped.
#
#   ./run.sh [start weak strong okd]        LIMBECK="python -m limbeck" where it is not installed
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
LIMBECK=${LIMBECK:-limbeck}
here=$(dirname "$0")
student='llama(layers=2, width=64, heads=4)'
common=(--data "arithmetic(digits=2, operations='+', backwards=True, train=1900, val=100, test=500)" --optimizer adamw
  --weight-decay 0.1 --clip-norm 1 --max-length 12 --max-new-tokens 6 --batch-size 32 --select last --validate-epochs 2)

train() { # NAME model then options
  [ -f "runs/$1/result.json" ] || $LIMBECK train "${common[@]}" --name "$1" --model "${@:2}" --overwrite
}

start() { # the networks that the comparisons begin with
  train teacher 'llama(layers=2, width=128, heads=4)' --epochs 30 --lr 0.001 --schedule cosine --warmup-epochs 1
  train weak "$student" --epochs 6 --lr 0.002 --schedule constant --warmup-epochs 1
  train strong "$student" --epochs 10 --lr 0.002 --schedule constant --warmup-epochs 1
}

study() { # of a start
  if [ -f "runs/skd-$1/table.json" ]; then return; fi
  $LIMBECK compare --config "$here/skd-$1.yaml" $([ -d "runs/skd-$1" ] && echo --resume)
}
weak() { study weak; }
strong() { study strong; }

okd() { # from the weak start; a step of it takes as long as TIMES steps of a frozen teacher
  local distil=("${common[@]}" --teacher 'llama(layers=2, width=128, heads=4)@runs/teacher/student.safetensors' --tokenizer characters
    --student "$student@runs/weak/student.safetensors" --lr 0.001 --schedule cosine --warmup-epochs 1 --answers 500 --seeds 5 --no-baselines)
  versus "okd-steps" 8 "ce + kl, ce + kl(direction='reverse'), okd, ce + okd(variant='ce'), ce + okd(variant='kl'), ce + okd(direction='forward')"
  versus "okd-time" $((8 * ${TIMES:-2})) "ce + kl, ce + kl(direction='reverse')"
}
versus() { # NAME epochs objectives
  if [ -f "runs/$1/table.json" ]; then return; fi
  $LIMBECK compare "${distil[@]}" --epochs "$2" --objectives "$3" --name "$1" $([ -d "runs/$1" ] && echo --resume)
}

for part in "${@:-start weak strong okd}"; do
  for each in $part; do "$each"; done
done
