#!/usr/bin/env bash
# The study of docs/experiments/results.md, one model: trains it unless it is there, and runs every attack on it.
#
#   tests/benchmarks/study.sh DATA_DIR OUTPUT_DIR mnist gaussian 0.5
#
# Arguments: where the data is, where everything goes, data set (mnist, fashion-mnist), training method, sigma.
# All models are attacked on the same images, so `caa compare` of all MODEL.ATTACK.json in OUTPUT_DIR shows them together.
set -euo pipefail
data=$1 out=$2 dataset=$3 method=$4 sigma=$5
model=$out/$dataset-$method-$sigma
mkdir -p "$out"
if [ ! -e "$model.safetensors" ]; then
  epochs=15
  if [ "$method" != gaussian ]; then epochs=12; fi
  caa train --dataset "$dataset" --data-dir "$data" --arch small-cnn --sigma "$sigma" --method "$method" --epochs $epochs \
    --schedule cosine --heldout 0 --dtype bfloat16 --evaluate-limit 200 --output "$model.safetensors"
fi
caa compare --checkpoint "$model.safetensors" --data-dir "$data" --every "${EVERY:-1000}" --limit "${LIMIT:-10}" \
  --samples 300 --verify-samples 25000 --dtype bfloat16 --output "$model.json" --resume \
  --attacks "${ATTACKS:-caa-newton:samples=375,caa:samples=1500,caa:samples=1500:refine=tangential:rivals=3,\
ddn,fmn,alma,pdgd,sdf,pgd,deepfool,autoattack,apgd-min:iterations=10:targets=3,cw:initial-constant=1:binary-search-steps=3}"
