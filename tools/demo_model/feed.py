"""Batches of pictures with questions, drawn by worker processes into memory that they share with the trainer."""

from __future__ import annotations

import mmap
import multiprocessing as mp
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from demo_model.pictures import SIZES, Picture, draw
from demo_model.questions import Question, ask
from demo_model.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_LENGTH = 104
"""Longest text in tokens, from the picture's end to the answer's end; longer questions are asked again."""
_SHARES = (0.3, 0.15, 0.25, 0.15, 0.15)
"""How often each of `SIZES` is drawn."""


@dataclass(frozen=True)
class Batch:
    """Pictures of one size with the same number of questions each."""

    pixels: NDArray[np.uint8]
    """Pictures x height x width x 3."""
    ids: NDArray[np.int16]
    """Questions x `MAX_LENGTH`: from the picture's end token to the answer's end, padded with 0."""
    picture: NDArray[np.int16]
    """Questions: which picture each is about."""
    start: NDArray[np.int16]
    """Questions: where the answer starts in `ids`."""
    length: NDArray[np.int16]
    """Questions: where it ends (exclusive); questions are sorted by it."""


class Encoder:
    """Turns questions into token ids the way the chat template does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._end = tokenizer.token_to_id(END_OF_TURN)
        self._before = self._plain("<|vision_end|>")
        self._between = self._plain(f"{END_OF_TURN}\n<|im_start|>assistant\n")
        self.prefix = self._plain("<|im_start|>user\n<|vision_start|>")

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def __call__(self, prompt: str, answer: str) -> tuple[list[int], int]:
        """Token ids from the picture's end token to the answer's end, and where the answer starts."""
        head = [*self._before, *self._plain(prompt), *self._between]
        return [*head, *self._plain(answer), self._end], len(head)


def write_questions(
    encoder: Encoder, questions: list[list[Question]]
) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    """Encodes the questions of each picture and sorts them all by length; see `Batch` for the four arrays."""
    rows = [(*encoder(one.prompt, one.answer), index) for index, some in enumerate(questions) for one in some]
    rows.sort(key=lambda row: len(row[0]))
    ids = np.zeros((len(rows), MAX_LENGTH), np.int16)
    for row, (tokens, _, _) in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    picture = np.array([row[2] for row in rows], np.int16)
    start = np.array([row[1] for row in rows], np.int16)
    length = np.array([len(row[0]) for row in rows], np.int16)
    return ids, picture, start, length


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the batches are made of."""

    num_pictures: int = 1024
    questions_each: int = 3
    fresh: float = 0.25
    """Share of newly drawn pictures; the others were seen before, some of them mirrored, and get new questions."""
    lesson: bool = False
    """Only abstract drawings of marks, and `WEAK_WORDS` are said; otherwise they are never said."""


class Drawer:
    """Makes batches; keeps the last pictures of each size for later questions."""

    _KEPT = 2000

    def __init__(self, rng: np.random.Generator, encoder: Encoder, plan: Plan) -> None:
        self._rng, self._encoder, self._plan = rng, encoder, plan
        self._words = random.Random(int(rng.integers(2**62)))
        self._pool: dict[tuple[int, int], list[Picture]] = {size: [] for size in SIZES}

    def batch(self) -> Batch:
        """Pictures of one random size and questions about them."""
        size = SIZES[self._rng.choice(len(SIZES), p=_SHARES)]
        pictures = self._pictures(size)
        questions = [
            [_short(self._words, picture, self._encoder) for _ in range(self._plan.questions_each)]
            for picture in pictures
        ]
        pixels = np.stack([picture.pixels for picture in pictures])
        return Batch(pixels, *write_questions(self._encoder, questions))

    def _pictures(self, size: tuple[int, int]) -> list[Picture]:
        rng, pool, total = self._rng, self._pool[size], self._plan.num_pictures
        num_fresh = max(round(total * self._plan.fresh), total - 3 * len(pool))
        fresh = [self._draw(size) for _ in range(num_fresh)]
        chosen = rng.integers(len(pool), size=total - num_fresh) if pool else []
        again = [self._mirror(pool[index]) for index in chosen]
        pool += fresh
        if len(pool) > self._KEPT:
            rng.shuffle(pool)
            del pool[self._KEPT :]
        return fresh + again

    def _draw(self, size: tuple[int, int]) -> Picture:
        picture = draw(self._rng, size)
        if not self._plan.lesson:
            return replace(picture, plain=False)
        while not (picture.plain and "mark" in picture.facts):
            picture = draw(self._rng, size)
        return picture

    def _mirror(self, picture: Picture) -> Picture:
        across, down = self._rng.random(2) < 0.5
        return picture.mirrored(across=bool(across), down=bool(down) and picture.facts.get("mark") != "drip")


def _short(words: random.Random, picture: Picture, encoder: Encoder) -> Question:
    while True:
        question = ask(words, picture)
        if len(encoder(question.prompt, question.answer)[0]) <= MAX_LENGTH:
            return question


class _Slot:
    """One batch in shared memory."""

    def __init__(self, num_pictures: int, questions_each: int) -> None:
        self._pictures, self._rows = num_pictures, num_pictures * questions_each
        pixels = num_pictures * max(height * width for height, width in SIZES) * 3
        self._memory = mmap.mmap(-1, pixels + self._rows * (MAX_LENGTH + 3) * 2)
        self._pixels = pixels

    def _views(self, height: int, width: int) -> Batch:
        pixels = np.frombuffer(self._memory, np.uint8, self._pictures * height * width * 3)
        rest = np.frombuffer(self._memory, np.int16, self._rows * (MAX_LENGTH + 3), self._pixels)
        ids, picture, start, length = np.split(rest, np.cumsum([MAX_LENGTH, 1, 1]) * self._rows)
        return Batch(
            pixels.reshape(self._pictures, height, width, 3), ids.reshape(-1, MAX_LENGTH), picture, start, length
        )

    def write(self, batch: Batch) -> tuple[int, int]:
        height, width = batch.pixels.shape[1:3]
        for into, source in zip(vars(self._views(height, width)).values(), vars(batch).values(), strict=True):
            into[...] = source
        return height, width

    def read(self, height: int, width: int) -> Batch:
        """Views into the slot: good until it is given free."""
        return self._views(height, width)


@contextmanager
def feed(tokenizer: Tokenizer, plan: Plan, *, seed: int, workers: int) -> Iterator[Iterator[Batch]]:
    """Yields batches without end, each good until the next; with 0 workers they are drawn in this process."""
    encoder = Encoder(tokenizer)
    if not workers:
        drawer = Drawer(np.random.default_rng([seed, 0]), encoder, plan)
        yield iter(drawer.batch, None)
        return
    context = mp.get_context("fork")
    slots = [_Slot(plan.num_pictures, plan.questions_each) for _ in range(workers + 4)]
    free, ready = context.SimpleQueue(), context.SimpleQueue()
    for number in range(len(slots)):
        free.put(number)

    def work(worker: int) -> None:
        cv2.setNumThreads(0)
        drawer = Drawer(np.random.default_rng([seed, worker]), encoder, plan)
        while True:
            batch = drawer.batch()
            number = free.get()
            ready.put((number, *slots[number].write(batch)))

    processes = [context.Process(target=work, args=(worker,), daemon=True) for worker in range(workers)]
    for process in processes:
        process.start()

    def batches() -> Iterator[Batch]:
        while True:
            number, height, width = ready.get()
            yield slots[number].read(height, width)
            free.put(number)

    try:
        yield batches()
    finally:
        for process in processes:
            process.terminate()
