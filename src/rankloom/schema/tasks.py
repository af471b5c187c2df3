"""Tasks (what is predicted) and roles (which columns mean what)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, model_validator

from rankloom.config import Config, OneOf
from rankloom.config.problems import problem
from rankloom.schema.labels import Expression, parse_expression


def _checked(text: str) -> str:
    parse_expression(text)
    return text


Share = Annotated[float, Field(gt=0, le=1)]
ExpressionText = Annotated[str, AfterValidator(_checked)]


class Task(Config):
    """What every task states."""

    label: ExpressionText
    """A column, or `column op literal`, such as `rating >= 4`."""
    mask: ExpressionText | None = None
    """Rows that count: a column or a comparison that is true there. Default: all."""
    weight: str | None = None
    """Column with each row's weight. Default: 1."""
    given: str | None = None
    """Task this one is conditional on: the logit predicts p(this | given), and the chain's
    product is what is trained, evaluated, saved and served."""
    loss_weight: NonNegativeFloat = 1.0
    """Factor of this task's loss in the sum."""

    @property
    def label_expression(self) -> Expression:
        """The parsed label."""
        return parse_expression(self.label)


class BinaryTask(Task):
    """A label of 0 or 1."""

    kind: Literal["binary"] = "binary"
    """Chooses this kind."""
    loss: Literal["product", "conditional_rows"] = "product"
    """With `given`: train the product at every row (ESMM), or p(this | given) on the rows where
    the other label is 1."""
    negatives_kept: Share = 1.0
    """Share of its negatives that the training log holds. Below 1, probabilities are corrected to
    those of a log with all, by adding log(negatives_kept) to the raw output (He et al., "Practical
    Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 6.3): such a log is what
    evaluation needs."""


class PositiveTask(Task):
    """A label of 0 or more, such as a watch time."""

    kind: Literal["positive"] = "positive"
    """Chooses this kind."""
    loss: Literal["product", "conditional_rows"] = "product"
    """With `given`: as for a binary task."""
    link: Literal["softplus", "log_normal"] = "softplus"
    """softplus: the logit's softplus is the mean, trained by the Poisson deviance, which keeps
    the sums calibrated. log_normal: the logit is the mean of log(1 + label), trained by squared
    error; the prediction is the median."""

    @model_validator(mode="after")
    def _no_product_of_a_median(self) -> Self:
        if self.given and self.link == "log_normal" and self.loss == "product":
            raise problem(
                "log_normal predicts a median, whose product with a probability is no mean. Set "
                "loss: conditional_rows or link: softplus."
            )
        return self


AnyTask = Annotated[BinaryTask | PositiveTask, OneOf(BinaryTask, PositiveTask)]


class Roles(Config):
    """Which columns mean what, beside the features."""

    user: str | None = None
    """Column that names the user: groups of GAUC."""
    item: str | None = None
    """Column that names the candidate."""
    request: str | None = None
    """Column that names the request: groups of GAUC by request."""
    event_time: str | None = None
    """Column with the row's time, in whole seconds."""
    position: str | None = None
    """Column with the place the candidate was shown at."""
    scenario: str | None = None
    """Column that names the surface: slices of evaluation."""
