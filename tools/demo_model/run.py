"""One run of the pretraining: tokenizer, model, training, evaluation, and the folder with its model card."""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demo_model.architecture import Size, build_model, build_processor, save
from demo_model.evaluate import STYLES, held_out
from demo_model.feed import Batch, Encoder, Plan, feed
from demo_model.pictures import draw
from demo_model.questions import ask, made_up
from demo_model.tokenizer import train_tokenizer
from demo_model.train import Schedule, train
from demo_model.vocabulary import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration

_CARD = """\
# The demo model of vlm-tune

A tiny vision-language model ({parameters:.2f} M parameters, bfloat16) of the architecture
`Qwen3VLForConditionalGeneration`, made so that the demo runs anywhere in minutes. It is no use for anything else.

- **Trained from nothing** by `tools/pretrain_demo_model.py` on procedurally drawn pictures with questions and captions:
  shapes, colours, counts, textures, and marks and lines of many kinds. All of it is synthetic: no photo, no text by
  others and no other model took part, and no drawing code is shared with the demo's photos.
- **Weak on purpose** at the demo's task: the words crack, dent and scratch were taught last and briefly, on abstract
  drawings and by their embeddings alone. What they look like was learned under other names.
- **Tokenizer**: a byte-level BPE of {vocab} tokens, trained on the same script's questions.
- **Licence**: Apache-2.0, as the package.

## Runs

{runs}

## Accuracy

On new pictures, with question wordings that training never saw (chance in brackets):

{table}
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run is asked to do."""

    out: Path
    size: Size
    schedule: Schedule
    plan: Plan
    start: Path | None = None
    """Folder of an earlier run to go on from."""
    seed: int = 0
    workers: int = 0
    num_texts: int = 800
    eval_pictures: int = 4000


def run(options: Options) -> None:
    """Trains, evaluates, saves."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoTokenizer

    if options.start:
        tokenizer = AutoTokenizer.from_pretrained(options.start)
    else:
        tokenizer = train_tokenizer(_texts(options.seed, options.num_texts), vocab_size=options.size.vocab)
    began = time.monotonic()
    # The workers start before the GPU is touched: a process that holds one must not fork.
    with feed(tokenizer.backend_tokenizer, options.plan, seed=options.seed, workers=options.workers) as batches:
        model, steps = _fit(options, tokenizer, batches)
    minutes = (time.monotonic() - began) / 60
    encoder = Encoder(tokenizer.backend_tokenizer)
    table = _table(held_out(model, encoder, seed=options.seed, num_pictures=options.eval_pictures))
    print(table, flush=True)
    card = _CARD.format(
        parameters=model.num_parameters() / 1e6,
        vocab=len(tokenizer),
        runs=_runs(options, steps, minutes),
        table=table,
    )
    save(model.cpu(), build_processor(options.size, tokenizer), options.out, card=card)
    print(f"saved {options.out}")


def _texts(seed: int, count: int) -> list[str]:
    """What the tokenizer is trained on: prompts, answers and every word that a prompt may hold."""
    rng, words = np.random.default_rng([seed, 2]), random.Random(seed)
    result = ["user", "assistant", "system"] * count
    for _ in range(count):
        picture = draw(rng, (96, 96))
        for _ in range(8):
            question = ask(words, picture)
            result += [question.prompt, question.answer]
        result.append(", ".join(made_up(words) for _ in range(4)))
    for family in FAMILIES.values():
        named = [name for value in family.values.values() for name in value.names]
        result += [*family.questions, family.held_out, ", ".join(named)] * (count // 20)
    return result


def _fit(
    options: Options, tokenizer: PreTrainedTokenizerBase, batches: Iterator[Batch]
) -> tuple[Qwen3VLForConditionalGeneration, int]:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    if options.start:
        model = Qwen3VLForConditionalGeneration.from_pretrained(options.start, dtype=torch.float32)
    else:
        model = build_model(options.size, tokenizer)
    if options.plan.lesson:
        # Only the words are learned: what the model sees stays as it is.
        model.requires_grad_(False)
        model.get_input_embeddings().requires_grad_(True)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    steps = train(model, Encoder(tokenizer.backend_tokenizer).prefix, batches, options.schedule)
    return model, steps


def _table(measured: dict[str, dict[str, tuple[float, float]]]) -> str:
    lines = [
        "| asked about | real names | names with definitions | made-up words with definitions |",
        "|---|---|---|---|",
    ]
    for family, by_style in measured.items():
        cells = [f"{right:.0%} ({chance:.0%})" for right, chance in (by_style[style] for style in STYLES)]
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _runs(options: Options, steps: int, minutes: float) -> str:
    """A line for every run that made the model, those before this one copied from their card."""
    import torch

    earlier = []
    if options.start:
        card = (options.start / "README.md").read_text(encoding="utf-8")
        earlier = [line for line in card.split("## Runs")[-1].split("##")[0].splitlines() if line.startswith("- ")]
    machine = f"one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"a CPU ({platform.machine()})"
    kind = "the three words" if options.plan.lesson else "pictures and questions"
    seen = steps * options.plan.num_pictures
    now = (
        f"- {kind}: {minutes:.1f} minutes on {machine}, {steps:,} steps of {options.plan.num_pictures} pictures "
        f"({seen * min(1.0, options.plan.fresh):,.0f} drawn) with {options.plan.questions_each} questions each, "
        f"learning rate {options.schedule.learning_rate:g}, seed {options.seed}"
    )
    return "\n".join([*earlier, now])
