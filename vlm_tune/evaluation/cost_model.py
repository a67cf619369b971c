"""`CostModel`: what an API and a tuned model cost at any volume, and where the one overtakes the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import NonNegativeFloat, ValidationError

from vlm_tune import _console
from vlm_tune._files import read_json, write_json
from vlm_tune.cost import Cost, GpuPrice, Price, Prices, gpu_cost
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation.unit_costs import GpuImageCost, api_cost, gpu_image_cost, rent_of
from vlm_tune.records import Money, Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group

    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["BreakEven", "CostModel", "MonthlyCost"]

_HOURS_A_MONTH = 730
_VOLUMES = (1, 1_000, 1_000_000)


class BreakEven(Record):
    """The number of images from which on the tuned model is cheaper, with its band; None stands for never.

    Examples:
        >>> print(BreakEven(images=2500, low=2100, high=None, basis="..."))
        2,500 images [2,100, never]
    """

    images: NonNegativeFloat | None
    """The number at the best estimates of both costs."""
    low: NonNegativeFloat | None
    """The number when the API is at the dear end of its interval and the GPU at the cheap end."""
    high: NonNegativeFloat | None
    """The number when it is the other way round."""
    basis: str
    """What was divided by what."""

    def __str__(self) -> str:
        shown = ["never" if value is None else f"{math.ceil(value):,}" for value in (self.images, self.low, self.high)]
        return f"{shown[0]}{'' if self.images is None else ' images'} [{shown[1]}, {shown[2]}]"


class MonthlyCost(Record):
    """What a month of so many images costs."""

    images: NonNegativeFloat
    """Images a month."""
    api: Cost
    """The API's bill."""
    tuned: Cost | None
    """GPU hours paid as they are used, at the stated utilisation; None where there is no tuned model."""
    always_on: Money | None
    """GPUs that are rented all month, as many as the images need."""

    def __str__(self) -> str:
        parts = [f"{self.images:,.10g} images a month: API {self.api}"]
        if self.tuned is not None and self.always_on is not None:
            parts += [f"GPU as used {self.tuned}", f"GPU all month {self.always_on}"]
        return ", ".join(parts)


class CostModel(Record):
    """What an image costs at an API and with a tuned model, per run, per thousand and per million.

    Examples:
        >>> costs = CostModel(api=Cost.exact(0.01, basis="a cent an image"))
        >>> print(costs.per_month(1_000_000).api)
        $10,000
    """

    api: Cost
    """One image at the API: `of_api`, or `Cost.exact` for a figure from a bill."""
    tuned: GpuImageCost | None = None
    """One image of the tuned model: `of_gpu`."""
    training: Money | None = None
    """Training the tuned model once: `of_training`."""

    @staticmethod
    def of_api(evaluation: Evaluation, *, price: Price | None = None, on: date | None = None) -> Cost:
        """Return what one image cost at an API: tokens as the server counted them, thinking included.

        Args:
            evaluation: The API's answers. Images that occur again were asked once and count once.
            price: Another price than the one at the time of asking, such as the batch price: see `price_of`.
            on: The day the price is to hold on, today unless told otherwise.

        Returns:
            The mean over the images asked with Student's 95 % interval.

        Raises:
            EvaluationError: An answer has no price, or no tokens were counted.
        """
        return api_cost(evaluation, price=price, on=on)

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
            The mean with Student's 95 % interval over 20 stretches of the run, since the images of one batch share
            their time.

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
        """
        rent = rent_of(gpu, provider=provider, own=own, on=on)
        return gpu_cost(seconds, rent.usd_per_hour, f"{rent.gpu} at {rent.provider}: {rent.provenance}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against relying on these figures, such as an old price."""
        return self.api.warnings + (() if self.tuned is None else self.tuned.warnings)

    def per_run(self, images: int) -> tuple[Cost, Cost | None]:
        """Return what so many images cost at the API and with the tuned model, training left out."""
        return self.api.times(images), self.tuned and _plain(self.tuned).times(images)

    def per_month(self, images: int) -> MonthlyCost:
        """Return what a month of so many images costs.

        Args:
            images: Images a month.
        """
        api, tuned = self.per_run(images)
        if self.tuned is None:
            return MonthlyCost(images=images, api=api, tuned=None, always_on=None)
        needed = max(1, math.ceil(images * self.tuned.seconds_per_image / (3600 * _HOURS_A_MONTH)))
        rent = gpu_cost(needed * _HOURS_A_MONTH * 3600, self.tuned.usd_per_hour, f"{needed} x {self.tuned.gpu}")
        return MonthlyCost(images=images, api=api, tuned=tuned, always_on=rent)

    @property
    def break_even(self) -> BreakEven:
        """Images after which training has paid for itself, GPU hours being paid as they are used.

        Raises:
            EvaluationError: There is no tuned model, or no training cost.
        """
        if self.tuned is None or self.training is None:
            raise EvaluationError("break-even needs tuned=CostModel.of_gpu(...), training=CostModel.of_training(...)")
        return _break_even(
            self.training.usd, self.api, self.tuned, basis="training / (API image - GPU image), over the intervals"
        )

    @property
    def break_even_per_month(self) -> BreakEven:
        """Images a month from which on a GPU that is rented all month is cheaper than the API; training left out.

        Raises:
            EvaluationError: There is no tuned model.
        """
        if self.tuned is None:
            raise EvaluationError("break-even needs tuned=CostModel.of_gpu(...)")
        rent = _HOURS_A_MONTH * self.tuned.usd_per_hour
        found = _break_even(rent, self.api, Cost.exact(0, basis=""), basis="a month's rent / API image")
        busy = _HOURS_A_MONTH * 3600 / self.tuned.seconds_per_image
        ends = {name: getattr(found, name) for name in ("images", "low", "high")}
        # One GPU cannot answer more than this in a month, and more GPUs cost more in the same proportion.
        possible = {name: value if value is not None and value <= busy else None for name, value in ends.items()}
        return BreakEven(**possible, basis=f"{found.basis}; one GPU answers at most {busy:,.0f} images a month")

    def frame(self, volumes: Sequence[int] = _VOLUMES) -> pd.DataFrame:
        """Return a row per system and number of images: dollars with their interval, training left out."""
        import pandas as pd

        rows = []
        for images in volumes:
            for system, cost in zip(("API", "tuned"), self.per_run(images), strict=True):
                if cost is not None:
                    ends = {"usd": cost.usd, "low": cost.low, "high": cost.high}
                    rows.append({"system": system, "images": images, **ends})
        return pd.DataFrame(rows)

    def show(self) -> None:
        """Show what an image, a thousand and a million cost, and from where on the tuned model is cheaper."""
        group = self._display()
        _console.show(group, html=_console.to_html(group))

    def _display(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title="What images cost, 95 % intervals", title_justify="left")
        for column in ("images", "API", *(["tuned"] if self.tuned else [])):
            table.add_column(column, justify="right")
        for images in _VOLUMES:
            table.add_row(f"{images:,}", *(str(cost) for cost in self.per_run(images) if cost is not None))
        lines = [f"API: {self.api.basis}."]
        if self.tuned is not None:
            lines.append(f"Tuned: {self.tuned.basis}.")
            lines.append(f"A GPU rented all month is cheaper from {self.break_even_per_month} a month on.")
        if self.training is not None:
            lines.append(f"Training, once: {self.training} ({self.training.basis}).")
        if self.tuned is not None and self.training is not None:
            lines.append(f"Training has paid for itself after {self.break_even}.")
        warned = [Text(f"Warning: {warning}", style="yellow") for warning in self.warnings]
        return Group(table, *(Text(line) for line in lines), *warned)

    def plot(self) -> Figure:
        """Draw dollars by number of images, with their bands; the tuned model begins at its training cost."""
        from vlm_tune.plots.costs import cost_lines

        lines = [("API", 0.0, self.api.usd, self.api.low, self.api.high)]
        if self.tuned is not None:
            once = self.training.usd if self.training else 0.0
            lines.append(("tuned", once, self.tuned.usd, self.tuned.low, self.tuned.high))
        meets = self.break_even.images if self.tuned and self.training else None
        return cost_lines(lines, meets=meets)

    def save(self, path: Path | str) -> Path:
        """Write everything to one JSON file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        return write_json(path, {"kind": "cost model", **self.model_dump(mode="json")})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved cost model.

        Raises:
            StorageError: The file is missing or is not a cost model.
        """
        found = read_json(path)
        if not isinstance(found, dict) or found.pop("kind", None) != "cost model":
            raise StorageError(f"{path} is not a saved cost model")
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise StorageError(f"{path} is not a saved cost model of this version") from error


def _plain(cost: Cost) -> Cost:
    return Cost(**{name: getattr(cost, name) for name in Cost.model_fields})


def _break_even(once: float, api: Cost, own: Cost, *, basis: str) -> BreakEven:
    def meets(api_usd: float, own_usd: float) -> float | None:
        return once / (api_usd - own_usd) if api_usd > own_usd else None

    return BreakEven(
        images=meets(api.usd, own.usd), low=meets(api.high, own.low), high=meets(api.low, own.high), basis=basis
    )
