"""Those who answer in `inference_speed.py`: stock transformers in several ways, vLLM, and vlm-tune.

Each is opened on a job, with its model loaded, and is then called with encoded photos; it returns a class for each, or
None where the words were none.
"""

from __future__ import annotations

import gc
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from confident import let_few_be_likely
from inference_jobs import Examples
from PIL import Image
from train_jobs import Job

import vlm_tune as vt
from vlm_tune import images
from vlm_tune.vlm.prompts import answer_ids
from vlm_tune.vlm.scoring import reference_scores

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CUDA = torch.cuda.is_available()
CORES = len(os.sched_getaffinity(0))
Answers = list[str | None]


@dataclass(frozen=True)
class Way:
    """How stock transformers is used.

    Attributes:
        does: `generate`, `compare` or `spell`: which method of `Stock` takes a prepared batch.
        batch_size: Photos a batch.
        most: How many photos are done at most.
        labels: How many labels are done at most, where each takes a pass of its own.
        ahead: Whether a thread prepares the next batches meanwhile; else a batch is prepared, answered, and so on.
    """

    does: str
    batch_size: int
    most: int
    labels: int | None = None
    ahead: bool = False


WAYS = {
    "generate-1": Way("generate", 1, most=8),
    "generate-16": Way("generate", 16, most=64),
    "generate-16-ahead": Way("generate", 16, most=64, ahead=True),
    "stock": Way("compare", 16, most=256),
    "stock-ahead": Way("compare", 16, most=256, ahead=True),
    "labels": Way("spell", 16, most=16, labels=8),
}


@dataclass
class Seen:
    """What was seen of a block: its seconds, and the most GPU memory in tensors and taken from the device, in 10^9."""

    seconds: float = 0.0
    peak_gb: float = 0.0
    reserved_gb: float = 0.0


@contextmanager
def watched() -> Iterator[Seen]:
    """Time a block and measure its memory; the numbers are there when it has ended."""
    seen = Seen()
    if CUDA:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield seen
    if CUDA:
        torch.cuda.synchronize()
        seen.peak_gb = torch.cuda.max_memory_allocated() / 1e9
        seen.reserved_gb = torch.cuda.max_memory_reserved() / 1e9
    seen.seconds = time.perf_counter() - started


def free() -> None:
    """Give all memory back that nothing refers to."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def decoded(example: vt.Example) -> Image.Image:
    """Return an example's photo as pixels."""
    return Image.open(io.BytesIO(example.read())).convert("RGB")


class Stock:
    """A model as transformers loads it, with its own processor on the CPU; photos are decoded by all cores."""

    def __init__(self, job: Job) -> None:
        dtype, device = (torch.bfloat16, "cuda") if CUDA else (torch.float32, "cpu")
        self.model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
            job.checkpoint, dtype=dtype, device_map=device
        )
        self.processor, self.task = job.processor, job.data.task
        self.processor.tokenizer.padding_side = "left"
        self.prompt, _ = job.texts
        self.spelled = [answer_ids(self.processor, label) for label in self.task.classes]

    def by(self, way: Way, new_tokens: int) -> Callable[[Examples], Answers]:
        """Return a function that answers in one way; where it generates, it writes so many tokens."""
        do = {
            "generate": lambda inputs: self.generate(inputs, new_tokens),
            "compare": self.compare,
            "spell": lambda inputs: self.spell(inputs, way.labels),
        }[way.does]
        return lambda examples: self.answer(examples, way, do)

    def close(self) -> None:
        """Give the model's memory back."""
        self.model = None
        free()

    @torch.inference_mode()
    def answer(self, examples: Examples, way: Way, do: Callable[[Any], Answers]) -> Answers:
        """Return the answers, in the photos' order."""
        size = way.batch_size
        batches = [examples[start : start + size] for start in range(0, len(examples), size)]
        with ThreadPoolExecutor(CORES) as decoders, ThreadPoolExecutor(1) as preparer:

            def prepare(batch: Examples) -> Any:
                photos = [[photo] for photo in decoders.map(decoded, batch)]
                text = [self.prompt] * len(photos)
                return self.processor(images=photos, text=text, padding=True, return_tensors="pt")

            found: Answers = []
            for inputs in preparer.map(prepare, batches) if way.ahead else map(prepare, batches):
                found += do(inputs.to(self.model.device, dtype=self.model.dtype))
        return found

    def generate(self, inputs: Any, new_tokens: int) -> Answers:
        """Let the model write greedily, and read its words."""
        written = self.model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens)
        new = written[:, inputs["input_ids"].shape[1] :]
        return [self.task.parse(text) for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def compare(self, inputs: Any) -> Answers:
        """Compare the logits of the labels' first tokens: right only where all labels begin differently."""
        logits = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
        return self._best(logits[:, [tokens[0] for tokens in self.spelled]])

    def spell(self, inputs: Any, most: int | None) -> Answers:
        """Compare the log-probabilities of whole labels and the token that ends the turn, with a pass for each."""
        scores = []
        for tokens in self.spelled[:most]:
            spelled = torch.tensor(tokens, device=self.model.device).expand(len(inputs["input_ids"]), -1)
            adds = {"input_ids": spelled, "attention_mask": torch.ones_like(spelled)}
            if "mm_token_type_ids" in inputs:
                adds["mm_token_type_ids"] = torch.zeros_like(spelled)
            longer = {**inputs, **{name: torch.cat([inputs[name], more], dim=1) for name, more in adds.items()}}
            logits = self.model(**longer, logits_to_keep=len(tokens) + 1, use_cache=False).logits[:, :-1]
            scores.append(logits.float().log_softmax(-1).gather(-1, spelled[..., None]).sum((1, 2)))
        return self._best(torch.stack(scores, dim=1))

    def _best(self, scores: torch.Tensor) -> Answers:
        return [self.task.classes[place] for place in scores.argmax(-1).tolist()]


class VLLM:
    """vLLM as a library, writing greedily; it makes its own batches."""

    def __init__(self, job: Job, new_tokens: int) -> None:
        import vllm  # type: ignore[import-not-found]

        self.engine: Any = vllm.LLM(
            model=str(job.checkpoint),
            max_model_len=2048,
            limit_mm_per_prompt={"image": 1},
            gpu_memory_utilization=0.6,
        )
        self.settings = vllm.SamplingParams(temperature=0.0, max_tokens=new_tokens)
        self.prompt, self.task = job.texts[0], job.data.task

    def __call__(self, examples: Examples) -> Answers:
        """Return the answers, in the photos' order."""
        with ThreadPoolExecutor(CORES) as decoders:
            photos = decoders.map(decoded, examples)
            asked = [{"prompt": self.prompt, "multi_modal_data": {"image": photo}} for photo in photos]
        written = self.engine.generate(asked, self.settings, use_tqdm=False)
        return [self.task.parse(one.outputs[0].text) for one in written]

    def close(self) -> None:
        """Give the model's memory back."""
        self.engine = None
        free()


class Ours:
    """vlm-tune through its public interface: `VLM.predict`."""

    def __init__(self, job: Job, batch_size: int | None, likely: int | None = None) -> None:
        self.model, self.task = vt.VLM(job.checkpoint, batch_size=batch_size), job.data.task
        resident = self.model.load()
        self.likely = likely
        if likely is not None:
            (last,) = job.processor.tokenizer(job.texts[0], add_special_tokens=False)["input_ids"][-1:]
            spelled = [answer_ids(job.processor, label) for label in self.task.classes]
            let_few_be_likely(resident.model, last, spelled, likely)

    def __call__(self, examples: Examples) -> Answers:
        """Return the answers, in the photos' order."""
        found = {one.example_id: one.label for one in self.model.predict(examples, self.task)}
        return [found[example.id] for example in examples]

    def evaluate(self, examples: Examples) -> None:
        """Do the same through an `Evaluator`, with nothing on disk."""
        vt.Evaluator(vt.Dataset(examples, task=self.task)).run(self.model)

    def difference(self, examples: Examples) -> float:
        """Return how far the scores are from those of one stock pass per label, at most, in nats.

        Of a model that is sure of its answers, those labels count that have more than 1 % of the probability.
        """
        resident = self.model.load()
        photos = [images.encode(example.image, max_pixels=self.task.max_pixels).data for example in examples]
        wanted = reference_scores(resident.model, resident.processor, photos, self.task).log_softmax(-1)
        found = {one.example_id: one.scores or {} for one in self.model.predict(examples, self.task)}
        ours = torch.tensor([[found[one.id][label] for label in self.task.classes] for one in examples])
        counted = wanted > (-math.inf if self.likely is None else math.log(0.01))
        return float((ours - wanted)[counted].abs().max())

    def close(self) -> None:
        """Give the model's memory back."""
        self.model.unload()
        free()


def cpu_rates(job: Job, most: int = 512) -> dict[str, float]:
    """Return how many photos a second all cores decode, and decode and make into what the model takes, in threads."""
    examples, before = job.data.examples[:most], torch.get_num_threads()

    def prepare(example: vt.Example) -> None:
        job.processor.image_processor([decoded(example)], return_tensors="pt")

    rates = {}
    torch.set_num_threads(1)
    with ThreadPoolExecutor(CORES) as workers:
        for name, do in (("decoded_per_s", decoded), ("prepared_per_s", prepare)):
            list(workers.map(do, examples[:CORES]))
            started = time.perf_counter()
            list(workers.map(do, examples))
            rates[name] = len(examples) / (time.perf_counter() - started)
    torch.set_num_threads(before)
    return rates
