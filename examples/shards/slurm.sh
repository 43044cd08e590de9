#!/bin/bash
# A mosaic by a Slurm array: 16 shards, then one job that writes the output.
#
#   shards=$(sbatch --parsable slurm.sh)
#   sbatch --array=0 --dependency=afterok:$shards slurm.sh stitch
#
# OUTPUT lies on a file system that all nodes share. A shard that fails, or whose node dies, is repeated by the same
# command; shards that are finished end at once.
#SBATCH --job-name=mosaic
#SBATCH --array=0-15
#SBATCH --cpus-per-task=2
#SBATCH --mem=2G
#SBATCH --time=06:00:00
#SBATCH --requeue
set -eu

SOURCE="https://tiles.example.com/{z}/{x}/{y}.tif"
OUTPUT="/shared/mosaic.tif"

build() { # 160 requests at once in all: 10 of each of the 16 shards
  mosaic-async build "$SOURCE" "$OUTPUT" --bounds -5.2 41.3 9.6 51.1 --zoom 12 --concurrency 10 --memory 1500MB "$@"
}

if [ "${1:-}" = stitch ]; then
  build
else
  build --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
fi
