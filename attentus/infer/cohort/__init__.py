"""Many scans: read, predicted and written side by side, here or by Dask workers.

What fails is listed and stops nothing. labels.json beside the results names the labels and remembers what was done with
which model, so that an interrupted cohort goes on where it was.
"""

from attentus.infer.cohort.command import predict_cohort
from attentus.infer.cohort.crew import Crew
from attentus.infer.cohort.scans import Scan, find_scans
from attentus.infer.cohort.stages import Done, Segmenter

__all__ = ["Crew", "Done", "Scan", "Segmenter", "find_scans", "predict_cohort"]
