"""What the small model of the CIFAR-100 experiment is made of: its forward pass, its questions, its views."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import ProcessorMixin

import vlm_tune as vt

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cifar100_lessons as lessons
import cifar100_model as small
from cifar100_pretrain import ARCHITECTURES, Plan, Pretraining, linear_probe, train

MEMBERS = {"fish": ["flatfish", "ray"], "trees": ["oak_tree", "pine_tree"]}
CPU = torch.device("cpu")
Parts = tuple[small.Forward, lessons.Lessons, ProcessorMixin]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def parts(request: pytest.FixtureRequest) -> Parts:
    made = ARCHITECTURES[request.param]
    processor = made.make_processor(made.make_tokenizer(lessons.texts(MEMBERS)))
    torch.manual_seed(0)
    model = made.make_model(small.TINY, processor.tokenizer).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                # Larger weights, so that every input matters.
                parameter.mul_(4)
    return made.Forward(model), lessons.Lessons(processor, MEMBERS, device=CPU), processor


@torch.no_grad()
def test_tokens_and_losses_are_those_of_the_processor_and_transformers(parts: Parts) -> None:
    forward, asked, processor = parts
    noise = np.random.default_rng(0).integers(0, 256, (3, small.SIDE, small.SIDE, 3), dtype=np.uint8)
    ids, answers = asked.kinds[torch.tensor([0, 31, 60])]
    pad = processor.tokenizer.pad_token_id
    told = [processor.tokenizer.decode([one for one in row if one != pad]) for row in ids.tolist()]
    lead, image = processor.tokenizer.decode(asked.prefix.tolist()), processor.image_token
    texts = [f"{lead}{image}{one}".replace(f"<|image_start|>{image}<|image_end|>", image) for one in told]
    images = [[Image.fromarray(one)] for one in noise]
    filled = {"padding": True, "padding_side": "right", "add_special_tokens": False, "return_tensors": "pt"}
    inputs = processor(images=images, text=texts, **filled)
    before = len(asked.prefix) + small.IMAGE_TOKENS
    length = inputs["input_ids"].shape[1] - before
    assert torch.equal(inputs["input_ids"][:, before:], ids[:, :length])
    assert not answers[:, length:].any()
    ids, answers = ids[:, :length], answers[:, :length]
    logits = forward.model(**inputs).logits[:, before - 1 : -1]
    expected = functional.cross_entropy(logits[answers], ids[answers], reduction="none")

    tokens, _ = forward.see(torch.from_numpy(noise).permute(0, 3, 1, 2) / 127.5 - 1)
    assert torch.allclose(forward.losses(asked.prefix, tokens, ids, answers), expected, atol=1e-4)
    small_ones = torch.from_numpy(noise[:, :32, :32]).permute(0, 3, 1, 2)
    larger = functional.interpolate(small_ones.float(), (small.SIDE, small.SIDE), mode="bilinear").round()
    whole = processor(images=[[Image.fromarray(one.numpy())] for one in larger.byte().permute(0, 2, 3, 1)], text=texts)
    resized = processor(images=[[Image.fromarray(one[:32, :32])] for one in noise], text=texts)
    pixels = [np.asarray(one["pixel_values"]) for one in (whole, resized)]
    assert np.abs(pixels[0] - pixels[1]).max() < 0.01


def test_a_class_is_cut_alike_in_the_list_and_as_the_answer(parts: Parts) -> None:
    tokenizer = parts[2].tokenizer
    task = vt.Task(prompt="What is shown in this photo?", classes=("oak_tree", "flatfish", "ray"))
    listed, alone = tokenizer.tokenize(task.render()), tokenizer.tokenize("oak_tree")
    assert "".join(alone) == "oak_tree" and len(alone) <= 3
    assert any(listed[place : place + len(alone)] == alone for place in range(len(listed)))
    assert tokenizer.decode(tokenizer("Zürich, 7 %!")["input_ids"]) == "Zürich, 7 %!"


def test_answers_come_from_the_superclass_and_are_offered(parts: Parts) -> None:
    _, asked, processor = parts
    for table, right in ((asked.kinds, {"fish": ["fish"], "trees": ["trees"]}), (asked.maybe, MEMBERS)):
        for number, kind in enumerate(MEMBERS):
            for _ in range(20):
                ids, answers = asked.about(table, torch.tensor([number]))
                answer = processor.tokenizer.decode(ids[answers]).removesuffix(small.END)
                question = processor.tokenizer.decode(ids[~answers])
                assert answer in right[kind]
                assert answer in question.split("Answer with one of: ")[1]


def test_a_question_gives_nothing_away_about_its_answer(parts: Parts) -> None:
    _, asked, processor = parts
    for table in (asked.kinds, asked.maybe, asked.lists):
        told: dict[str, set[int]] = {}
        for row, (ids, answers) in enumerate(zip(table.ids, table.answers, strict=True)):
            question = processor.tokenizer.decode(ids[: int(answers.nonzero()[0, 0])])
            told.setdefault(question, set()).add(row % len(MEMBERS))
        assert all(superclasses == {0, 1} for superclasses in told.values())


def test_looks_are_those_of_the_view(parts: Parts) -> None:
    _, asked, processor = parts
    torch.manual_seed(0)
    blue = torch.tensor([70, 120, 200.0])[None, :, None, None].expand(40, 3, 8, 8) / 127.5 - 1
    ids, answers = asked.look(blue, torch.ones(40, dtype=torch.long), torch.full((40,), 2))
    told = {processor.tokenizer.decode(row[marks]) for row, marks in zip(ids, answers, strict=True)}
    assert told == {
        f"{one}{small.END}" for one in ("blue", "medium", "upside down", "medium blue photo of trees, upside down")
    }


def test_views_are_turned_to_the_left_and_mixed_by_their_shares() -> None:
    torch.manual_seed(0)
    images = torch.zeros((64, 3, 32, 32), dtype=torch.uint8)
    images[:, :, :, 16:] = 255
    upright, turned = lessons.augment(images, 32), lessons.augment(images, 32, turns=torch.ones(64))
    assert upright.shape == (64, 3, 32, 32) and float(upright.abs().max()) <= 1
    # What was light on the right is light on top now; mirrored ones are light below.
    across = (turned[..., 16:, :].mean((1, 2, 3)) - turned[..., :16, :].mean((1, 2, 3))).abs()
    along = (turned[..., 16:].mean((1, 2, 3)) - turned[..., :16].mean((1, 2, 3))).abs()
    assert (across > along).float().mean() > 0.9
    plain = torch.arange(64.0)[:, None, None, None].expand(64, 3, 32, 32)
    mixed, how = lessons.mix(plain)
    expected = how.share * torch.arange(64) + (1 - how.share) * how.partner
    assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-3)
    assert 0 < int((how.share == 1).sum()) < 40


def test_a_few_steps_lower_the_loss_and_the_features_tell_classes_apart(parts: Parts) -> None:
    forward, asked, processor = parts
    torch.manual_seed(0)
    made = next(one for one in ARCHITECTURES.values() if isinstance(forward, one.Forward))
    model = made.make_model(small.TINY, processor.tokenizer)
    images = torch.randint(0, 256, (16, 3, 1, 1)).expand(16, 3, 32, 32).to(torch.uint8)
    pretraining = Pretraining(made.Forward(model, drop=0.1), asked, contrast=0.5)
    kinds = torch.arange(16) % 2
    before = pretraining.losses(images, kinds)
    plan = Plan(seconds=600, steps=12, batch=8, learning_rate=3e-3, contrast=0.5, warm_up=1)
    assert train(pretraining, images, kinds, plan) == 96
    after = pretraining.losses(images, kinds)
    assert after["looks"] < before["looks"] and after["kind"] < before["kind"]
    features = torch.randn(100, 8)
    labels = (features[:, 0] > 0).long()
    assert linear_probe(features, labels, judged=torch.arange(100) % 5 == 0) > 0.8
