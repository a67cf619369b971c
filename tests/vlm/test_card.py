"""Model cards: front matter that the Hub reads, and text that Markdown shows as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from vlm_tune.vlm import card


def test_the_hub_reads_the_front_matter(tmp_path: Path) -> None:
    path = card.write_card(
        tmp_path, "a model", base_model="a/b", relation="finetune", tags=["lora"], sections={"One": "1", "Two": "2"}
    )
    about = ModelCard.load(path).data.to_dict()
    assert about["base_model"] == "a/b"
    assert about["base_model_relation"] == "finetune"
    assert about["tags"] == ["vlm-tune", "lora"]
    text = path.read_text(encoding="utf-8")
    assert text.index("# a model") < text.index("## One\n\n1\n") < text.index("## Two\n\n2\n")


def test_without_a_known_base_there_is_no_relation(tmp_path: Path) -> None:
    path = card.write_card(tmp_path, "a model", base_model=None, relation="finetune", tags=[], sections={})
    assert "base_model" not in yaml.safe_load(path.read_text(encoding="utf-8").split("---")[1])
    assert card.base_model_of(tmp_path) is None


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    path = card.write_card(
        tmp_path,
        "<script>\n# x",
        base_model=None,
        relation="finetune",
        tags=[],
        sections={"Facts": card.rows({"a": "b | <i>"})},
    )
    text = path.read_text(encoding="utf-8")
    assert "# &lt;script&gt; # x\n" in text
    assert r"| a | b \| &lt;i&gt; |" in text


@pytest.mark.parametrize(
    ("front", "base"),
    [
        ("tags: [vlm-tune]\nbase_model: a/b", "a/b"),
        ("tags: [vlm-tune]\nbase_model: /home/somebody/model", None),
        ("tags: [vlm-tune]\nbase_model: [a/b, c/d]", None),
        ("tags: [somebody-elses]\nbase_model: a/b", None),
        ("tags:\nbase_model: a/b", None),
        ("- vlm-tune", None),
        ("base_model: [", None),
    ],
)
def test_the_base_is_only_ever_an_id_and_one_that_this_library_wrote(
    tmp_path: Path, front: str, base: str | None
) -> None:
    (tmp_path / card.CARD_FILE).write_text(f"---\n{front}\n---\n# a model\n")
    assert card.base_model_of(tmp_path) == base


def test_a_card_without_front_matter_names_no_base(tmp_path: Path) -> None:
    assert card.base_model_of(tmp_path) is None
    (tmp_path / card.CARD_FILE).write_text("# a model\n")
    assert card.base_model_of(tmp_path) is None
