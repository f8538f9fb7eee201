"""Where faults are injected: functions that a training runs through. Who moves one of them changes its name here."""

_LAUNCHER, _RUNNER = "ealinformer.training.launcher", "ealinformer.training.runner:ForecastingRunner"
REPLACE, SYNC, WRITE = "os:replace", "os:fsync", "pathlib:Path.write_bytes"
CHECK_DATA = f"{_LAUNCHER}:check_contents"
BEGIN, END = "ealinformer.training.runs.folder:begin", "ealinformer.training.runs.folder:end"
BUILD = f"{_RUNNER}.__init__"
STEP = f"{_RUNNER}._train_step"
PREDICT = f"{_RUNNER}._predict"  # a batch of any part
VALIDATE = f"{_RUNNER}.validate"
EVALUATE = f"{_RUNNER}.evaluate"
SAVE_PREDICTIONS, DRAW = f"{_LAUNCHER}:save_predictions", f"{_LAUNCHER}:loss_curves"

ALL = (
    REPLACE,
    SYNC,
    WRITE,
    CHECK_DATA,
    BEGIN,
    BUILD,
    STEP,
    PREDICT,
    VALIDATE,
    EVALUATE,
    SAVE_PREDICTIONS,
    DRAW,
    END,
)
