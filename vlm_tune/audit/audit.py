"""`LabelAudit`: which labels are worth a second look, a sheet to rule on them, and what the rulings change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vlm_tune._console import Shown
from vlm_tune.audit.evidence import Photos, Trained, copies_of, weigh
from vlm_tune.audit.keeping import load_audit, save_audit
from vlm_tune.audit.photos import audited, embedded
from vlm_tune.audit.rescoring import Rescored
from vlm_tune.audit.rulings import Rulings, Sheet, read_rulings
from vlm_tune.audit.suspect import Suspect
from vlm_tune.data.splitting import shuffled
from vlm_tune.errors import EvaluationError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from vlm_tune.data import Dataset
    from vlm_tune.embedding import Embedder, EmbeddingFunction
    from vlm_tune.evaluation import Evaluation
    from vlm_tune.leakage import Copies, LeakageReport
    from vlm_tune.task import Task

__all__ = ["LabelAudit"]


class LabelAudit(Shown):
    """Ranks photos by how likely their label is wrong; immutable.

    Evidence is what the systems answered and how sure they were, what copies of a photo are called and, with `data`,
    the labels of its most similar photos and the answers of classifiers that were not fitted on it. It is pooled into
    one probability (`vlm_tune.audit.pooling`), whose weights are estimated from the labels as they stand. Systems err
    together, so that every suspect is a candidate: `review` writes a sheet for people to rule on, `rulings` reads it
    back, and `rescore` shows what changes. Nothing is dropped or corrected by itself.

    Args:
        evaluations: What systems answered; of photos that they were not trained on, or they have learnt the errors.
        data: All photos that are to be audited, training split included; the evaluated ones must be among them. Without
            it those of the evaluations are.
        leakage: What a leak check or `find_copies` found: copies with other labels count as evidence, and photos of
            one unit never vote for each other.
        embedder: For neighbours and classifiers, or a function; `default_embedder()` unless given. One that knows what
            photos mean finds far more than `PixelEmbedder`.
        cross_validate: Folds of the classifiers, logistic regression and least squares on embeddings, which answer
            about photos left out; 0 for none.
        trained_by: Trains a further predictor on the examples that it is given, once for each fold, such as
            `lambda train: trainer.fit(train)`: dear, and the best witness about the training split.
        cache_dir: Where embeddings are kept between runs; a `LeakageChecker` may share it.

    Raises:
        EvaluationError: There is neither an evaluation nor data; evaluations are about other photos, labels or classes;
            or too few photos are left.

    Examples:
        >>> from vlm_tune.evaluation import Evaluation
        >>> truth = {f"{i}.jpg": "dent" if i % 2 else "crack" for i in range(20)}
        >>> seen = truth | {"3.jpg": "crack"}
        >>> systems = [Evaluation.from_answers(name, truth=truth, answers=seen, classes=["crack", "dent"])
        ...            for name in ("base", "tuned")]
        >>> audit = LabelAudit(systems)
        >>> audit.suspects[0].example_id, audit.suspects[0].suggestion
        ('3.jpg', 'crack')
    """

    def __init__(
        self,
        evaluations: Sequence[Evaluation] = (),
        *,
        data: Dataset | None = None,
        leakage: LeakageReport | Copies | None = None,
        embedder: Embedder | EmbeddingFunction | None = None,
        cross_validate: int = 5,
        trained_by: Trained | None = None,
        cache_dir: Path | str | None = None,
    ) -> None:
        if cross_validate < 0 or cross_validate == 1:
            raise EvaluationError(
                f"cross_validate is a number of folds, 2 or more, or 0 for none, not {cross_validate}"
            )
        examples, task = audited(evaluations, data)
        vectors, unreadable = None, dict[str, str]()
        if data is not None:
            examples, vectors, unreadable = embedded(examples, embedder, cache_dir)
        evidence = weigh(
            Photos(examples, task, copies_of(leakage)),
            evaluations,
            vectors=vectors,
            folds=cross_validate if data is not None else 0,
            trained_by=trained_by,
        )
        self._evaluations = tuple(evaluations)
        self._keep(evidence.suspects(), task=task, images={one.id: one.image for one in examples}, lost=unreadable)

    def _keep(
        self, found: Iterable[Suspect], *, task: Task, images: Mapping[str, Path | bytes], lost: Mapping[str, str]
    ) -> None:
        self._ranking = tuple(sorted(found, key=lambda one: (-round(one.log_odds, 4), one.example_id)))
        self._task, self._images, self._unreadable = task, images, lost

    def __repr__(self) -> str:
        return f"LabelAudit({len(self.ranking)} photos, {len(self.suspects)} suspects)"

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The systems' answers."""
        return self._evaluations

    @property
    def task(self) -> Task:
        """The classes, and whether several may apply."""
        return self._task

    @property
    def ranking(self) -> tuple[Suspect, ...]:
        """Every photo that was audited, the most suspicious first."""
        return self._ranking

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """The photos whose label is more likely wrong than right, the most suspicious first."""
        return tuple(one for one in self._ranking if one.suspicion > 0.5)

    @property
    def agreed(self) -> tuple[str, ...]:
        """Ids of the photos whose label all systems gave (`Suspect.agreed`): where controls are drawn from."""
        return tuple(one.example_id for one in self._ranking if one.agreed)

    @property
    def expected_wrong(self) -> float:
        """The sum of all suspicions: how many wrong labels the evidence makes one expect."""
        return sum(one.suspicion for one in self._ranking)

    @property
    def images(self) -> Mapping[str, Path | bytes]:
        """Id to where the photo is, or its bytes; empty where nobody knows."""
        return self._images

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Id of each photo that cannot be read, and why; they are left out."""
        return self._unreadable

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits over the photos and their labels: what a sheet belongs to."""
        words = sorted(f"{one.example_id}\0{one.label}\0" for one in self._ranking)
        return hashlib.sha256("".join([*self.task.classes, "\0", *words]).encode()).hexdigest()[:16]

    def __getitem__(self, example_id: str) -> Suspect:
        """Return what is known about one photo.

        Raises:
            KeyError: It was not audited.
        """
        return self._by_id[example_id]

    @cached_property
    def _by_id(self) -> Mapping[str, Suspect]:
        return {one.example_id: one for one in self._ranking}

    def sheet(self, *, suspects: int = 50, controls: int = 25, seed: int = 0) -> Sheet:
        """Return which photos a review shows: the first of the ranking and a random sample of agreed ones, mixed.

        Args:
            suspects: How many of the ranking.
            controls: How many agreed ones that are not among these; all, where there are fewer.
            seed: Draws the controls and the order.

        Raises:
            EvaluationError: There is nothing to show.
        """
        if suspects < 0 or controls < 0 or not suspects + controls:
            raise EvaluationError(f"a sheet needs photos, not {suspects} suspects and {controls} controls")
        first = [one.example_id for one in self._ranking[:suspects]]
        pool = sorted(set(self.agreed).difference(first))
        drawn = shuffled(pool, seed)[:controls]
        return Sheet(
            audit=self.fingerprint,
            seed=seed,
            suspects=tuple(first),
            controls=tuple(drawn),
            num_agreed=len(pool),
            order=tuple(shuffled([*first, *drawn], seed + 1)),
        )

    def review(self, path: Path | str, *, suspects: int = 50, controls: int = 25, seed: int = 0) -> Path:
        """Write the review sheet: one HTML file that works offline, and a CSV of the same photos beside it.

        Controls are not marked and the order is random, so that whoever rules does not know what the audit thinks.
        What the systems said is folded away until then. Buttons rule `keep`, `relabel` or `unsure`; the rulings are
        saved from the page as CSV or JSON, or written into the CSV by hand.

        Args:
            path: The HTML file; another ending becomes `.html`.
            suspects: How many photos of the ranking.
            controls: How many photos that nobody doubts.
            seed: Draws the controls and the order.

        Raises:
            EvaluationError: There is nothing to show.
            StorageError: A file cannot be written.
        """
        from vlm_tune.audit.page import write_page

        sheet = self.sheet(suspects=suspects, controls=controls, seed=seed)
        return write_page(self, sheet, Path(path).with_suffix(".html"))

    def rulings(self, path: Path | str) -> Rulings:
        """Read back what was ruled, from the CSV or JSON of a review; photos without a ruling are listed as pending.

        Raises:
            DataError: A photo is unknown or there twice, a ruling or label is none, a label is no longer what it was,
                or the sheet belongs to another audit; the message names the line.
            StorageError: The file cannot be read.
        """
        return read_rulings(Path(path), self)

    def rescore(self, rulings: Rulings) -> Rescored:
        """Return all systems before and after the labels that were ruled wrong are put right.

        Raises:
            EvaluationError: The rulings belong to another audit, or there are no evaluations.
        """
        return Rescored.of(self, rulings)

    def _rich(self) -> RenderableType:
        """Draw the first suspects, and what speaks against their labels."""
        from vlm_tune.audit.display import audit_display

        return audit_display(self)

    def frame(self) -> pd.DataFrame:
        """Return a row for each photo, the most suspicious first: label, suggestion, suspicion, every answer."""
        from vlm_tune.audit.display import audit_frame

        return audit_frame(self)

    def plot(self, *, most: int = 15) -> Figure:
        """Draw the weights of evidence about the first photos: who speaks for the label, and who against it."""
        from vlm_tune.plots.audit import weights_of_evidence

        rows = [(f"{one.example_id}: {one.label}, or {one.suggestion}?", one.evidence) for one in self._ranking[:most]]
        return weights_of_evidence(rows)

    def save(self, path: Path | str) -> Path:
        """Write the ranking and the evaluations to one parquet file; photos stay where they are.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        return save_audit(self, path)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved audit.

        Raises:
            StorageError: The file is missing or is not a label audit.
        """
        kept = load_audit(path)
        audit = cls.__new__(cls)
        audit._evaluations = kept.evaluations
        audit._keep(kept.ranking, task=kept.task, images=kept.images, lost=kept.unreadable)
        return audit
