"""Mends BasicTS's early stopping, which takes NaN for an improvement so that a diverged run never stops."""

import math

from basicts.runners import BasicTSRunner
from basicts.runners.callback import EarlyStopping


def is_better(score: float, best: float | None) -> bool:
    """Whether a validation score is lower than the best one so far; NaN is worse than every number."""
    return best is None or score < best or (math.isnan(best) and not math.isnan(score))


class PatientStopping(EarlyStopping):
    """Stops once the validation score has not become better for `patience` validations, NaN among them."""

    def on_validate_end(self, runner: BasicTSRunner, train_step: int | None, train_epoch: int | None = None) -> None:
        name = f"val/{runner.target_metric}"
        if is_better(runner.meter_pool.get_value(name), runner.best_metrics.get(name)):
            self.counter = 0
            return
        self.counter += 1
        if self.counter >= self.patience:
            runner.should_training_stop = True
