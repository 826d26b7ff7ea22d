"""Many trainings of one recipe: folds and seeds, one after another here or side by side on a Dask cluster.

Every run is `fit` in a folder of its own, so whatever ends a worker, the run goes on elsewhere from its checkpoint.
What the runs need of each other lies in the hidden folder `.farm` beside them: a lock per run, so that two processes
never write the same run, and a token of the command in charge; a run whose token is gone stops.
"""

from attentus.train.farm.command import CrossRun, every_fold, fit_many

__all__ = ["CrossRun", "every_fold", "fit_many"]
