"""The jobs of `inference_speed.py`: the model, drawn photos, the question, and the least arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from train_jobs import DAMAGE, Job, cifar, photos

import vlm_tune as vt
from vlm_tune.families import family_in
from vlm_tune.training.planning.blocks import blocks_of
from vlm_tune.vlm.prompts import answer_ids

Examples = Sequence[vt.Example]


_QUESTION = (
    "This image of 32 by 32 pixels shows one thing of everyday life, seen from any side. "
    "Which of the hundred classes is it? Answer with the class name only."
)


class Unlisted(vt.Task):
    """A question that does not name its classes."""

    def render(self) -> str:
        """Return the question alone."""
        return self.prompt


@dataclass(frozen=True)
class Plan:
    """What a job is made of.

    Attributes:
        model: A name that `make_random_checkpoint.py` knows.
        images: How many there are.
        question: What is asked where the hundred classes are not named.
    """

    model: str
    images: int
    question: str = ""


JOBS = {
    "damage": Plan("qwen3-vl-8b", 98),
    "cifar100-lfm": Plan("lfm2-vl-3b", 4096),
    "cifar100-qwen": Plan("qwen3-vl-8b", 768),
    "cifar100-lfm-unlisted": Plan("lfm2-vl-3b", 4096, question=_QUESTION),
}


@dataclass(frozen=True)
class Asked:
    """A job's photos, encoded, in memory, and what answering them takes.

    Attributes:
        job: The model and the question.
        examples: The photos.
        others: Photos to begin with, so that nothing is timed that happens only once.
    """

    job: Job
    examples: Examples
    others: Examples

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """How many photos and classes there are, and the tokens of a prompt and of the labels, the end included."""
        sizes, labels = self.job.sizes, [answer_ids(self.job.processor, name) for name in self.job.data.task.classes]
        return {
            "images": len(self.examples),
            "tokens": sizes["tokens"] - sizes["answer_tokens"],
            "image_tokens": sizes["image_tokens"],
            "patches": sizes["patches"],
            "classes": len(labels),
            "label_tokens": [min(map(len, labels)), max(map(len, labels))],
            "first_tokens": len({label[0] for label in labels}),
        }

    @cached_property
    def work(self) -> float:
        """Floating-point operations of the whole job, of linear layers and attention, for the prompts alone.

        A weight costs 2 operations a row; attention costs 4 rows^2 x (width of its heads), half of it where it is
        causal. What the labels' tokens, the patch embedding and the logits need comes on top.
        """
        model, sizes, total = vt.VLM(self.job.checkpoint).skeleton(), self.sizes, 0.0
        family, config = family_in(model), vt.TrainConfig()
        for region, rows, mixing in (
            ("vision", sizes["patches"], 4),
            ("projector", sizes["image_tokens"], 0),
            ("language", sizes["tokens"], 2),
        ):
            for block in blocks_of(model, family, region, config):
                total += 2.0 * block.weights * rows + mixing * rows**2 * block.queries
        return total * len(self.examples)


def draw(name: str, checkpoint: Path, *, images: int | None, tiny: bool) -> Asked:
    """Return a job with its photos.

    Args:
        name: A key of `JOBS`.
        checkpoint: Folder of its model.
        images: How many, where there are a hundred classes; None takes the plan's.
        tiny: A few small photos, and ten classes.
    """
    plan, damage = JOBS[name], name == "damage"
    count = 8 if tiny else plan.images if damage else images or plan.images
    # Two full batches of sixteen and the two photos that are left of 98: the shapes of the job.
    more = 4 if tiny else max(34, count // 8)
    if damage:
        size = (120, 90) if tiny else (1000, 750)
        job = Job(name, "A", checkpoint, vt.Dataset(photos(count + more, *size), task=DAMAGE), num_images=count)
    else:
        drawn = cifar(checkpoint, images=count + more, classes=10 if tiny else 100, tiny=tiny)
        task = drawn.data.task
        if plan.question:
            task = Unlisted(prompt=plan.question, classes=task.classes)
        job = replace(drawn, name=name, data=vt.Dataset(drawn.data.examples, task=task), num_images=count)
    return Asked(job, job.data.examples[:count], job.data.examples[count:])
