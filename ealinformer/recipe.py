"""How a model is trained: a recipe, and what a published model brings as its own for each series."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]


class Strict(BaseModel):
    """A schema that takes no unknown key and is not changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="strings")


class Curriculum(Strict):
    """The loss sees the first horizons alone, then one more at a time: every `epochs` epochs or every `steps` steps.

    In the first `warm_epochs` epochs it sees all of them.
    """

    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    warm_epochs: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _one_pace(self) -> "Curriculum":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("one of epochs and steps is expected")
        if self.steps is not None and self.warm_epochs:
            raise ValueError("warm_epochs goes with epochs, not with steps")
        return self

    def horizons(self, epoch: int, step: int, output_len: int) -> int:
        """How many horizons the loss sees at a step; epochs and steps count from 1."""
        if self.steps is not None:
            return min((step - 1) // self.steps + 1, output_len)
        assert self.epochs is not None
        if epoch <= self.warm_epochs:
            return output_len
        return min((epoch - 1 - self.warm_epochs) // self.epochs + 1, output_len)


class Recipe(Strict):
    """How a model is trained: the optimizer, a step-wise learning rate, the loss on the original scale.

    The defaults are what the authors of STAEformer use on most of the PEMS series.
    """

    # Huber with delta 1, and with delta 2; both count nulls, too.
    loss: Literal["masked_mae", "masked_huber", "huber", "huber_2"] = "huber"
    # adafactor keeps a row and a column of second moments where Adam keeps two moments of each weight. Its weight decay
    # and AdamW's are decoupled, Adam's is coupled.
    optimizer: Literal["adam", "adamw", "adafactor"] = "adam"
    # Of Adafactor it is the most by which a step changes a tensor relative to its root mean square, and bounded by
    # 1 / sqrt(step); torch has 1e-2 where it has 1e-3 for Adam.
    # Bounded because Adam in float32 ends in an overflow where they are absurd.
    lr: Annotated[float, Field(gt=0, le=1e6)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 5e-4
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8  # of Adam and AdamW, added to the root of the second moment
    # steps: the rate is multiplied by gamma after each of the milestones, in epochs; plateau: it is when the validation
    # loss has not fallen for more than plateau_epochs, down to min_lr; cosine: it falls to min_lr at the last epoch,
    # after it rose from warmup_lr in the first warmup_epochs.
    schedule: Literal["steps", "plateau", "cosine"] = "steps"
    milestones: tuple[PositiveInt, ...] = (15, 30, 50)
    plateau_epochs: PositiveInt = 10
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_lr: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    warmup_epochs: Annotated[int, Field(ge=0, lt=2**31)] = 0
    warmup_lr: Annotated[float, Field(ge=0, le=1e6)] = 1e-6
    batch_size: PositiveInt = 16
    micro_batch_size: PositiveInt | None = None  # a batch passes the model in parts of so many windows; same gradient
    eval_batch_size: PositiveInt = 64
    num_epochs: PositiveInt = 300
    patience: PositiveInt | None = 20  # epochs without a better validation score before stopping; None: never
    select_by: Literal["loss", "MAE"] = "loss"  # validation score that picks the best epoch
    curriculum: Curriculum | None = None
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    skip_nonfinite: Annotated[int, Field(ge=0, lt=2**31)] = 0  # steps with a loss or gradient that is not finite


@dataclass(frozen=True)
class PublishedRecipe:
    """A recipe that came with a model, and what it sets of the model's config; `source` is where it was published."""

    recipe: Recipe
    params: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


# By series, "default" for the others, and then by the name of the recipe; the first is taken unless one is asked for.
Recipes = Mapping[str, Mapping[str, PublishedRecipe]]
DEFAULT = "default"
