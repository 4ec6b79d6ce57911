#!/bin/sh
# Measures everything that needs a GPU, in at most LIMIT seconds (default: 470), and writes one JSON for each part:
#
#     benchmarks/gpu.sh [FOLDER]                 # default: outputs/gpu
#     python -m benchmarks.render FOLDER         # the tables of docs/guides/performance.md
#
# Run it again with the same folder to go on: parts whose JSON is there are not measured again. It exits with 75 while
# parts are missing. Nothing is fetched: the weights are random or in the package. Environment: PYTHON, DEVICE, MODEL
# (of benchmarks/speed.py), RUNS, LIMIT, and PARTS, the names of the parts to measure.
set -u
cd "$(dirname "$0")/.."
out=${1:-outputs/gpu} python=${PYTHON:-python} device=${DEVICE:-cuda} model=${MODEL:-full} runs=${RUNS:-3}
parts=${PARTS:-tests steps_50 batches_4 batches_16 steps_10 steps_4 training}
until=$(($(date +%s) + ${LIMIT:-470})) missing=
mkdir -p "$out"
export HF_HUB_OFFLINE=1 PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"

# measure NAME COMMAND...: the command writes $out/NAME.part, which becomes the JSON if it succeeds.
measure() {
    name=$1 left=$((until - $(date +%s)))
    shift
    if [ -s "$out/$name.json" ]; then
        echo "$name: measured before"
    elif [ "$left" -lt 20 ]; then
        echo "$name: no time left"
        missing="$missing $name"
    elif timeout "$left" "$@" >"$out/$name.log" 2>&1 && mv "$out/$name.part" "$out/$name.json"; then
        echo "$name: done"
    else
        echo "$name: failed, see $out/$name.log"
        missing="$missing $name"
    fi
}

speed() {
    name=$1
    shift
    measure "$name" "$python" benchmarks/speed.py --device "$device" --model "$model" --runs "$runs" \
        --output "$out/$name.part" "$@"
}

for part in $parts; do
    case $part in
        tests) measure tests sh -c '"$0" -m pytest -m gpu -q >"$1.log" 2>&1 || exit 1
            printf "{\"tests\": \"%s\"}\n" "$(tail -n 1 "$1.log")" >"$1"' "$python" "$out/tests.part" ;;
        steps_50) speed steps_50 --num_inference_steps 50 ;;
        steps_10) speed steps_10 --num_inference_steps 10 --cases float16 bfloat16 channels_last ;;
        steps_4) speed steps_4 --num_inference_steps 4 --cases float16 bfloat16 channels_last ;;
        batches_*) speed "$part" --num_images "${part#batches_}" --num_inference_steps 10 --cases float16 bfloat16 ;;
        training) measure training "$python" benchmarks/training.py --models full --num_steps 5 --num_warmup_steps 2 \
            --output_file "$out/training.part" ;;
        *) echo "$part: no such part"; missing="$missing $part" ;;
    esac
done
[ -z "$missing" ] || { echo "missing:$missing; run it again with the same folder to go on"; exit 75; }
