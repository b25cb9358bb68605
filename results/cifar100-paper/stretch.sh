#!/bin/sh
# One stretch of GPU time at the protocol of the CIFAR-100 benchmark (240 epochs, batch 64). What is finished is left alone and what was
# stopped goes on, so each stretch adds rows; it ends by itself, with everything saved, before SECONDS_LEFT are over.
#   SECONDS_LEFT=570 RUNS=runs DATA=~/.cache/limbeck sh results/cifar100-paper/stretch.sh
# PAIRS and METHODS choose; EXTRA shortens a rehearsal, as in EXTRA="--epochs 2 --train-limit 2000 --device cpu".
set -eu
cd "$(dirname "$0")/../.."
RUNS=${RUNS:-runs}
LIMBECK=${LIMBECK:-limbeck}
SECONDS_LEFT=${SECONDS_LEFT:-570}
PAIRS=${PAIRS:-"resnet32x4:resnet8x4 wrn_40_2:wrn_16_2 resnet56:resnet20 vgg13:vgg8 resnet32x4:shufflenetv2"}
METHODS=${METHODS:-"kd icd+kd icd icd_paper icd_paper+kd crd crd+kd rrd at sp rkd dkd dist"}
SEEDS=${SEEDS:-3}
END=$(($(date +%s) + SECONDS_LEFT))

# The folder, and the words that make it. Nothing is done where FILE of the folder tells that it is finished.
stretch() {
    folder=$1 finished=$2
    shift 2
    [ -e "$folder/$finished" ] && return 0
    left=$((END - $(date +%s) - 20)) # time to save what there is
    [ "$left" -gt 30 ] || exit 0
    [ -d "$folder" ] && set -- "$@" --resume
    # shellcheck disable=SC2086 # words of EXTRA are words of the command
    timeout -s TERM -k 60 "$left" "$LIMBECK" "$@" --runs-dir "$RUNS" ${DATA:+--data-dir "$DATA"} ${EXTRA:-} || {
        [ $? -eq 124 ] && exit 0
        echo "failed: $LIMBECK $*" >&2
        exit 1
    }
}

for pair in $PAIRS; do
    teacher=${pair%%:*} student=${pair##*:}
    case $student in mobilenetv2* | shufflenet*) lr=0.01 ;; *) lr=0.05 ;; esac
    stretch "$RUNS/cifar100-$teacher" result.json train --config recipes/cifar100-teacher.yaml --model "$teacher" \
        --name "cifar100-$teacher"
    for method in $METHODS; do
        # The student alone comes with the first method; later ones are tables of their own over the same seeds.
        baselines=--no-baselines
        [ "$method" = "${METHODS%% *}" ] && baselines=--baselines
        name=cifar100-$teacher-$student-$method
        stretch "$RUNS/$name" table.json compare --config recipes/cifar100-compare.yaml --teacher "$RUNS/cifar100-$teacher" \
            --student "$student" --objectives "$method" --seeds "$SEEDS" --lr "$lr" $baselines --name "$name"
    done
done
echo "everything that was asked for is finished; 'limbeck reproduce --runs $RUNS' shows it beside what was published"
