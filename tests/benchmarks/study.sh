#!/usr/bin/env bash
# The study of docs/experiments/results.md, one model: trains it unless it is there, and runs every attack on it.
#
#   tests/benchmarks/study.sh DATA_DIR OUTPUT_DIR mnist gaussian 0.5
#
# Arguments: where the data is, where everything goes, data set (mnist, fashion-mnist), training method, sigma.
set -euo pipefail
data=$1 out=$2 dataset=$3 method=$4 sigma=$5
case $dataset in
  mnist) name=mnist every=${EVERY:-700} limit=${LIMIT:-14} ;;
  fashion-mnist) name=fashion every=${EVERY:-500} limit=${LIMIT:-20} ;;
  *) echo "mnist or fashion-mnist, not $dataset" >&2; exit 2 ;;
esac
epochs=15
if [ "$method" != gaussian ]; then epochs=12; fi
model=$out/$name-$method-$sigma
mkdir -p "$out"
if [ ! -e "$model.safetensors" ]; then
  caa train --dataset "$dataset" --data-dir "$data" --arch small-cnn --sigma "$sigma" --method "$method" --epochs $epochs \
    --schedule cosine --heldout 0 --dtype bfloat16 --output "$model.safetensors"
fi
attacks=caa:samples=1500,caa:samples=1500:refine=tangential:rivals=3,caa-newton:samples=1500
attacks+=,pgd,cw:initial-constant=1:binary-search-steps=3,deepfool,autoattack,ddn,fmn,alma
caa compare --checkpoint "$model.safetensors" --dataset "$dataset" --data-dir "$data" --every "$every" --limit "$limit" \
  --samples 300 --selection-samples 2500 --certify-samples 10000 --verify-samples 25000 --dtype bfloat16 \
  --attacks "$attacks" --output "$model.json" --resume
