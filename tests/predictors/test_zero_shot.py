"""Zero-shot answers by the text side of a real, tiny open_clip model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.clip import tiny_clip
from tests.leakage.planting import jpeg_bytes, scene
from vlm_tune.embedding import OpenClip, PixelEmbedder
from vlm_tune.errors import PredictorError, TaskError
from vlm_tune.predictors import Baseline
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("crack", "dent", "scratch"), descriptions={"dent": "a hollow"})


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> OpenClip:
    import open_clip
    import torch

    folder = tmp_path_factory.mktemp("clip")
    name = tiny_clip(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model(name).state_dict(), folder / "tiny.pt")
    return OpenClip(name, folder / "tiny.pt")


def photos() -> list[Example]:
    return [Example(id=f"{n}.jpg", image=jpeg_bytes(scene(n)), label="dent") for n in range(5)]


def test_the_answer_is_the_nearest_text(embedder: OpenClip) -> None:
    import open_clip
    import torch

    answers = list(Baseline.clip(embedder).predict(photos(), TASK))
    model = embedder._loaded[0]
    words = open_clip.get_tokenizer(embedder.model)([f"a photo of {label}." for label in TASK.classes])
    with torch.inference_mode():
        texts = model.encode_text(words, normalize=True)
        scale = model.logit_scale.exp()
        expected = (scale * torch.tensor(embedder.embed([e.read() for e in photos()])) @ texts.T).log_softmax(-1)
    for answer, row in zip(answers, expected.numpy(), strict=True):
        assert answer.label == TASK.classes[int(row.argmax())]
        assert answer.scores is not None
        assert np.allclose(list(answer.scores.values()), row, atol=1e-3)
        assert sum(map(math.exp, answer.scores.values())) == pytest.approx(1)


def test_several_templates_are_averaged_and_may_describe(embedder: OpenClip) -> None:
    one, other = ["{label}"], ["a close-up of {label}, {description}"]
    scores = [
        next(iter(Baseline.clip(embedder, templates=texts).predict(photos(), TASK))).scores
        for texts in (one, other, one + other)
    ]
    assert scores[0] != scores[2] != scores[1]
    plain = TASK.model_copy(update={"descriptions": {}})
    [*_, described] = Baseline.clip(embedder, templates=other).predict(photos(), TASK)
    [*_, undescribed] = Baseline.clip(embedder, templates=other).predict(photos(), plain)
    assert described.scores != undescribed.scores


def test_the_fingerprint_changes_with_weights_and_templates(embedder: OpenClip) -> None:
    first = Baseline.clip(embedder)
    assert first.fingerprint == Baseline.clip(embedder).fingerprint
    assert first.fingerprint != Baseline.clip(embedder, templates=["{label}"]).fingerprint
    assert first.name == "zero-shot open_clip vlm-tune-tiny tiny.pt"
    untrained = OpenClip("vlm-tune-tiny", None)
    assert Baseline.clip(untrained).fingerprint != Baseline.clip(untrained).fingerprint


@pytest.mark.parametrize("template", ["a photo", "a {thing}", "{label", "{0} {label}"])
def test_a_template_that_cannot_be_filled_in_is_refused(embedder: OpenClip, template: str) -> None:
    with pytest.raises(PredictorError, match="template"):
        Baseline.clip(embedder, templates=[template])


def test_no_template_at_all_is_refused(embedder: OpenClip) -> None:
    with pytest.raises(PredictorError, match="does not name the class"):
        Baseline.clip(embedder, templates=[])


def test_an_embedder_that_reads_no_text_is_refused() -> None:
    with pytest.raises(PredictorError, match=r"pass OpenClip\(\)"):
        Baseline.clip(PixelEmbedder())  # type: ignore[arg-type]


def test_several_classes_need_another_baseline(embedder: OpenClip) -> None:
    several = TASK.model_copy(update={"multi_label": True})
    with pytest.raises(TaskError, match="linear_probe"):
        list(Baseline.clip(embedder).predict(photos(), several))
