"""`CostModel`: what an API and a tuned model cost at any volume, and where the one overtakes the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from vlm_tune.cost import Cost, GpuPrice, Price, Prices, gpu_cost
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.cost_words import month_sentence
from vlm_tune.evaluation.monthly_costs import BreakEven, MonthlyCost, all_month, by_the_hour, whole_gpus
from vlm_tune.evaluation.unit_costs import GpuImageCost, api_cost, gpu_image_cost, rent_of
from vlm_tune.records import Money, SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["VOLUMES", "CostModel"]

VOLUMES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
"""Images a month that tables show."""


class CostModel(SavedRecord):
    """What images cost at an API and with a tuned model: each, a month of them, and where the one overtakes the other.

    Examples:
        >>> costs = CostModel(api=Cost.exact(0.01, basis="a cent an image"))
        >>> costs.sentence
        '1,000,000 images a month cost $10,000 with the API.'
    """

    saved_as: ClassVar[str] = "cost model"
    api: Cost
    """One image at the API: `of_api`, or `Cost.exact` for a figure from a bill."""
    batch: Cost | None = None
    """One image at the API in batch mode: `of_api(..., batch=True)`."""
    tuned: GpuImageCost | None = None
    """One image of the tuned model: `of_gpu`."""
    training: Money | None = None
    """Training the tuned model once: `of_training`."""
    labelling: Money | None = None
    """Having the photos labelled once: `of_labelling`."""
    months: PositiveInt = 12
    """Months over which training and labelling are spread: as long as the model is good for."""
    images_per_month: PositiveInt = 1_000_000
    """Images a month that `sentence` is about."""

    @staticmethod
    def of_api(
        evaluation: Evaluation,
        *,
        price: str | Price | None = None,
        batch: bool = False,
        own: Prices = (),
        on: date | None = None,
    ) -> Cost:
        """Return what one image cost at an API: tokens as the server counted them, thinking included.

        Args:
            evaluation: The API's answers. Images that occur again were asked once and count once.
            price: Another price than the one at the time of asking: a model's name, or the price itself.
            batch: Take the discount for batch mode off that price.
            own: Prices of your own, where `price` is a name: a TOML file or records.
            on: The day the price is to hold on, today unless told otherwise.

        Returns:
            The mean over the images asked with the 95 % interval of `statistics.positive_mean`.

        Raises:
            EvaluationError: No price or no discount is known, or no tokens were counted.
        """
        return api_cost(evaluation, price=price, batch=batch, own=own, on=on)

    @staticmethod
    def of_gpu(
        evaluation: Evaluation,
        *,
        gpu: str | GpuPrice,
        utilisation: float,
        provider: str | None = None,
        own: Prices = (),
        on: date | None = None,
    ) -> GpuImageCost:
        """Return what one image costs on a rented GPU: seconds as measured, loading the model left out.

        Args:
            evaluation: A local model's answers, measured on this kind of GPU.
            gpu: The card, such as `H100`, or its price.
            utilisation: Share of the rented time in which the GPU answers: 1 only if photos wait in a queue.
            provider: Who rents it out; by default the dearest that is known.
            own: Prices of your own: a TOML file or records.
            on: The day of the rent, today unless told otherwise.

        Returns:
            The mean, with the 95 % interval of `statistics.positive_mean` over 20 stretches of the run, since the
            images of one batch share their time.

        Raises:
            EvaluationError: No price is known, nothing was timed, or the utilisation is no share.
        """
        return gpu_image_cost(evaluation, gpu=gpu, utilisation=utilisation, provider=provider, own=own, on=on)

    @staticmethod
    def of_training(
        seconds: float,
        *,
        gpu: str | GpuPrice,
        provider: str | None = None,
        own: Prices = (),
        on: date | None = None,
    ) -> Money:
        """Return what training costs on a rented GPU that is held for so many seconds.

        Raises:
            EvaluationError: No price is known.
            ValueError: The time is negative.
        """
        rent = rent_of(gpu, provider=provider, own=own, on=on)
        return gpu_cost(seconds, rent.usd_per_hour, f"{rent.gpu} at {rent.provider}: {rent.provenance}")

    @staticmethod
    def of_labelling(images: int, *, usd_per_image: float, source: str) -> Money:
        """Return what it costs to have images labelled.

        Args:
            images: Those of training, validation and test together.
            usd_per_image: Dollars for one label.
            source: Who asks that much, and since when.

        Raises:
            ValueError: A negative number or price.

        Examples:
            >>> print(CostModel.of_labelling(417, usd_per_image=0.08, source="our invoice of October 2026"))
            $33.36
        """
        if not (0 <= images < math.inf and 0 <= usd_per_image < math.inf):
            raise ValueError(f"images and their price cannot be negative: {images} labels at ${usd_per_image} each")
        basis = f"{images:,} labels at ${usd_per_image:g} each ({source})"
        return Money(usd=images * usd_per_image, basis=basis)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against relying on these figures, such as an old price."""
        costs = (cost for cost in (self.api, self.batch, self.tuned) if cost is not None)
        return tuple(dict.fromkeys(warning for cost in costs for warning in cost.warnings))

    @property
    def names(self) -> tuple[str, str]:
        """What the API and the tuned model are called: as in their evaluations."""
        return self.api.system or "the API", (self.tuned and self.tuned.system) or "the tuned model"

    @property
    def once(self) -> Money:
        """Training and labelling together, as far as they are given."""
        given = [amount for amount in (self.training, self.labelling) if amount is not None]
        return Money(usd=sum(one.usd for one in given), basis=" + ".join(one.basis for one in given) or "nothing given")

    @property
    def sentence(self) -> str:
        """What a month costs in each way, and from how many images on the tuned model pays, for whoever decides."""
        return month_sentence(self)

    def per_month(self, images: int) -> MonthlyCost:
        """Return what a month of so many images costs in each way.

        Args:
            images: Images a month. A month of none still pays its share of training, and for GPUs rented all month.

        Raises:
            EvaluationError: The number is negative or not finite.
        """
        if not 0 <= images < math.inf:
            raise EvaluationError(f"a number of images is 0 or more, not {images}")
        api, batch = self.api.times(images), self.batch and self.batch.times(images)
        if self.tuned is None:
            return MonthlyCost(images=images, api=api, batch=batch)
        tuned = _plain(self.tuned).times(images)
        share = Money(usd=self._share, basis=f"1/{self.months} of {self.once.basis}")
        gpus, rent = whole_gpus(images, self.tuned)
        return MonthlyCost(
            images=images, api=api, batch=batch, by_the_hour=tuned.plus(share), all_month=rent.plus(share), gpus=gpus
        )

    @property
    def _share(self) -> float:
        return self.once.usd / self.months

    def break_even(self, *, batch: bool = False) -> BreakEven:
        """Return after how many images in all training and labelling have paid for themselves.

        GPU time is paid as it is used, at the stated utilisation.

        Args:
            batch: Against the API in batch mode.

        Raises:
            EvaluationError: There is no tuned model, no training cost, or no price in batch mode.
        """
        if self.training is None:
            raise EvaluationError("break-even needs training=CostModel.of_training(...)")
        return by_the_hour(self.once.usd, self._api(batch), self._tuned)

    def break_even_per_month(self, *, batch: bool = False, whole: bool = False) -> BreakEven:
        """Return from how many images a month on the tuned model is cheaper, with its share of training and labelling.

        Args:
            batch: Against the API in batch mode.
            whole: For whole GPUs that are rented all month, instead of by the hour: from which number on they are
                cheaper at every number, since a bill that rises in steps may fall behind again.

        Raises:
            EvaluationError: There is no tuned model, or no price in batch mode.
        """
        found = all_month if whole else by_the_hour
        return found(self._share, self._api(batch), self._tuned)

    @property
    def _tuned(self) -> GpuImageCost:
        if self.tuned is None:
            raise EvaluationError("break-even needs tuned=CostModel.of_gpu(...)")
        return self.tuned

    def _api(self, batch: bool) -> Cost:
        if batch and self.batch is None:
            raise EvaluationError(
                "break-even against batch mode needs batch=CostModel.of_api(evaluation, price='the model', batch=True)"
            )
        return self.batch if batch and self.batch is not None else self.api

    def frame(self, volumes: Sequence[int] = VOLUMES) -> pd.DataFrame:
        """Return a row per number of images a month and way to have them answered: dollars with their interval.

        Args:
            volumes: Images a month.

        Raises:
            EvaluationError: A number is negative or not finite.
        """
        import pandas as pd

        rows = []
        for images in volumes:
            month = self.per_month(images)
            for way in ("api", "batch", "by_the_hour", "all_month"):
                cost: Cost | None = getattr(month, way)
                if cost is not None:
                    gpus = month.gpus if way == "all_month" else None
                    ends = {"usd": cost.usd, "low": cost.low, "high": cost.high, "n": cost.n}
                    rows.append({"images": images, "way": way, "system": cost.system, **ends, "gpus": gpus})
        return pd.DataFrame(rows)

    def _rich(self) -> RenderableType:
        """Draw a month's bill by number of images, where its figures come from, and where the tuned model pays."""
        from vlm_tune.evaluation.cost_display import shown

        return shown(self)

    def plot(self) -> Figure:
        """Draw a month's bill by number of images, with bands and break-evens."""
        from vlm_tune.evaluation.cost_display import drawn

        return drawn(self)


def _plain(cost: Cost) -> Cost:
    return Cost(**{name: getattr(cost, name) for name in Cost.model_fields})
