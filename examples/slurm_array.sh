#!/bin/bash
#SBATCH --array=0-3 --time=24:00:00 --requeue
#SBATCH --signal=B:USR1@120 --open-mode=append --output=slurm_array_%a.log

# One chain for each task:  sbatch slurm_array.sh
# Until its chain is complete, a task is given another turn whenever its time is over.

trap 'kill -USR1 $chain' USR1 # Slurm sends USR1 to this shell alone,
trap : TERM                   # and TERM to the chain as well.
python slurm_array.py &
chain=$!

while kill -0 $chain 2>/dev/null; do wait $chain; done # a signal ends `wait` early
wait $chain
code=$?

# 75: there is more to do.
if [ $code -eq 75 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"; fi
exit $code
