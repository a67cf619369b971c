"""Pretrain a small LFM2-VL or Qwen3-VL (20 M parameters) from nothing on 8,000 images of CIFAR-100, on one GPU.

    python benchmarks/cifar100_pretrain.py --data cifar100/ --out models/cifar-lfm2-vl [--architecture qwen3-vl]
    python benchmarks/cifar100_pretrain.py --data cifar100/ --out /tmp/try --tiny --steps 3

It learns to name superclasses, colours, brightness and which way up an image is, and which classes its superclass has;
and, beside that, to find the two views of an image in a batch. It never sees which class an image is of, and sees none
of the images that the experiment trains and tests on (`cifar100_experiment.py`). What it is then worth is printed:
a linear classifier on its frozen features, fitted to four fifths of the training images left, judged on the last fifth.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cifar100_data
import cifar100_model
import cifar100_qwen
import numpy as np
import torch
from cifar100_lessons import Lessons, Mix, augment, mix, texts
from cifar100_model import SIDE, TINY, Forward, Size, save
from torch import Tensor, nn
from torch.nn import functional

import vlm_tune as vt

ARCHITECTURES = {"lfm2-vl": cifar100_model, "qwen3-vl": cifar100_qwen}
CARD = """# A small vision-language model pretrained on 8,000 images of CIFAR-100

Made by `benchmarks/cifar100_pretrain.py` of vlm-tune, from random weights, for experiments on how vlm-tune works. It
knows nothing but 8,000 images of 32x32 and says nothing about what released models can do.
"""


@dataclass(frozen=True)
class Plan:
    """How to train; the one of `seconds` and `steps` that is reached first ends it."""

    seconds: float
    steps: int | None
    batch: int
    learning_rate: float
    contrast: float
    warm_up: int = 200

    def rates(self) -> Iterator[float]:
        """Yield the learning rate of each step: a linear warm-up and a cosine to 0 over time or steps."""
        began = time.monotonic()
        for step in count():
            done = max((time.monotonic() - began) / self.seconds, step / self.steps if self.steps else 0.0)
            if done >= 1:
                return
            yield self.learning_rate * min(1.0, (step + 1) / self.warm_up) * 0.5 * (1 + math.cos(math.pi * done))


class Pretraining:
    """The model, and what its losses are.

    Args:
        forward: The model's forward pass.
        lessons: The questions.
        contrast: Weight of finding the other view of an image.
    """

    def __init__(self, forward: Forward, lessons: Lessons, *, contrast: float) -> None:
        self.forward, self.lessons, self.contrast = forward, lessons, contrast
        # Only for finding views again, and dropped afterwards.
        self.head = nn.Sequential(nn.Linear(forward.width, 1024), nn.GELU(), nn.Linear(1024, 128)).to(lessons.device)

    def losses(self, images: Tensor, superclasses: Tensor) -> dict[str, Tensor]:
        """Return the losses of one batch by name.

        Args:
            images: uint8 of shape (n, 3, 32, 32).
            superclasses: Their numbers.
        """
        turns = torch.randint(4, superclasses.shape, device=images.device)
        # Every third view is turned: most of what the model will see stands upright.
        turns = turns * (torch.rand_like(turns, dtype=torch.float32) < 1 / 3)
        mixed, how = mix(augment(images, SIDE))
        turned = augment(images, SIDE, turns=turns)
        tokens, features = self.forward.see(torch.cat([mixed, turned]))
        first, second = tokens.chunk(2)
        # The answer is that of either image, as often as there is of it: on average the loss of both, weighted.
        told = torch.where(torch.rand_like(how.share) < how.share, superclasses, superclasses[how.partner])
        lessons, half, few = self.lessons, len(images) * 2 // 3, max(1, len(images) // 16)
        return {
            "kind": self._answered(first[:half], lessons.about(lessons.kinds, told[:half])),
            "maybe": self._answered(first[half:], lessons.about(lessons.maybe, told[half:])),
            "lists": self._answered(first[:few], lessons.about(lessons.lists, told[:few])),
            "looks": self._answered(second, lessons.look(turned, superclasses, turns)),
            "contrast": self._contrast(features, how),
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum."""
        weights = {"kind": 1.0, "maybe": 0.5, "lists": 0.1, "looks": 0.5, "contrast": self.contrast}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def _answered(self, tokens: Tensor, asked: tuple[Tensor, Tensor]) -> Tensor:
        return self.forward.losses(self.lessons.prefix, tokens, *asked).mean()

    def _contrast(self, features: Tensor, how: Mix) -> Tensor:
        """A mixed view belongs to the other views of both its images, by their shares."""
        first, second = functional.normalize(self.head(features).float(), dim=1).chunk(2)
        likeness = (first @ second.T / 0.15).log_softmax(1)
        own, other = likeness.diagonal(), likeness.gather(1, how.partner[:, None])[:, 0]
        return -(how.share * own + (1 - how.share) * other).mean()


def train(pretraining: Pretraining, images: Tensor, superclasses: Tensor, plan: Plan) -> int:
    """Train, on a GPU in bfloat16 autocast with float32 weights; return the images seen."""
    model, device = pretraining.forward.model, images.device
    named = [*model.named_parameters(), *pretraining.head.named_parameters()]
    decayed = [one for _, one in named if one.ndim > 1]
    others = [one for _, one in named if one.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), fused=device.type == "cuda")
    model.train()

    def step_on(rows: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            losses = pretraining.losses(images[rows], superclasses[rows])
        pretraining.total(losses).backward()
        return losses

    def some() -> Tensor:
        return torch.randint(len(images), (min(plan.batch, len(images)),), device=device)

    # The first step compiles, which is no training.
    step_on(some())
    began, shown, seen = time.monotonic(), 0.0, 0
    for step, rate in enumerate(plan.rates()):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        rows = some()
        losses = step_on(rows)
        nn.utils.clip_grad_norm_([one for _, one in named], 1.0)
        optimizer.step()
        seen += len(rows)
        elapsed = time.monotonic() - began
        if step in (0, 20) or elapsed - shown > 10:
            shown = elapsed
            told = "  ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            print(f"step {step:5d}  {elapsed:5.0f} s  {seen / elapsed:6.0f} images/s  {told}", flush=True)
    model.eval()
    return seen


@torch.no_grad()
def features_of(forward: Forward, images: np.ndarray, device: torch.device) -> Tensor:
    """Return the mean over the patches of the vision tower's output, for images as they are."""
    parts = []
    for start in range(0, len(images), 1000):
        part = torch.from_numpy(images[start : start + 1000]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        larger = functional.interpolate(part, (SIDE, SIDE), mode="bilinear")
        parts.append(forward.see(larger)[1].float())
    return torch.cat(parts)


def linear_probe(features: Tensor, labels: Tensor, *, judged: Tensor) -> float:
    """Return the accuracy of a linear classifier of frozen features on the `judged` rows, fitted to the others."""
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    layer = nn.Linear(features.shape[1], int(labels.max()) + 1).to(features.device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(300):
        loss = functional.cross_entropy(layer(features[~judged]), labels[~judged])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float((layer(features[judged]).argmax(1) == labels[judged]).float().mean())


def probe(forward: Forward, examples: Sequence[vt.Example], classes: Sequence[str], device: torch.device) -> float:
    """Return what a linear classifier of these examples' classes reaches on every fifth of them."""
    features = features_of(forward, cifar100_data.pixels(examples), device)
    labels = torch.tensor([classes.index(example.label) for example in examples], device=device)
    return linear_probe(features, labels, judged=torch.arange(len(labels), device=device) % 5 == 0)


def main() -> None:
    """Read the command line, pretrain and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="lfm2-vl")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training")
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--contrast", type=float, default=0.5, help="weight of finding the other view of an image")
    parser.add_argument("--layers", type=int, default=8, help="layers of the vision tower")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and batch, to try the script")
    given = parser.parse_args()
    began = time.monotonic()
    torch.manual_seed(given.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pretraining_images, left = cifar100_data.read(given.data)
    kinds: dict[str, list[str]] = {}
    for example in pretraining_images:
        kinds.setdefault(str(example.metadata["coarse_label"]), []).append(example.label)
    members = {kind: sorted(set(kinds[kind])) for kind in sorted(kinds)}
    made = ARCHITECTURES[given.architecture]
    processor = made.make_processor(made.make_tokenizer(texts(members)))
    model = made.make_model(TINY if given.tiny else Size(vision_layers=given.layers), processor.tokenizer).to(device)
    print(
        f"{sum(one.numel() for one in model.parameters()):,} parameters, {len(processor.tokenizer)} tokens", flush=True
    )
    images = torch.from_numpy(cifar100_data.pixels(pretraining_images.examples)).permute(0, 3, 1, 2).to(device)
    order = {kind: number for number, kind in enumerate(members)}
    superclasses = torch.tensor([order[str(one.metadata["coarse_label"])] for one in pretraining_images], device=device)
    forward = made.Forward(model, drop=0.1)
    pretraining = Pretraining(forward, Lessons(processor, members, device=device), contrast=given.contrast)
    plan = Plan(
        seconds=given.minutes * 60,
        steps=given.steps,
        batch=16 if given.tiny else given.batch,
        learning_rate=given.learning_rate,
        contrast=given.contrast,
    )
    print(f"{len(images)} images, ready after {time.monotonic() - began:.0f} s", flush=True)
    seen = train(pretraining, images, superclasses, plan)
    reached = probe(forward, left.train.examples, left.task.classes, device)
    print(f"saw {seen:,} images; linear probe of 100 classes on frozen features: {reached:.3f}", flush=True)
    save(model, processor, given.out, card=CARD)
    print(f"saved in {given.out} after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
