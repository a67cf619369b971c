"""The audit tells what is trained, escaped and in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.training.proving.audit import TokenAudit, TokenSpan


@pytest.fixture
def audit() -> TokenAudit:
    return TokenAudit(
        examples=6,
        trained_text={f"class {number}": f"class {number}<|im_end|>" for number in range(25)},
        trained_tokens=24,
        total_tokens=2914,
        image_tokens=2800,
        example_id="<b>/7.jpg",
        spans=(
            TokenSpan(kind="masked", text="What is <i>it</i>?\n", num_tokens=5),
            TokenSpan(kind="image", text="<image x 700>", num_tokens=700),
            TokenSpan(kind="trained", text="dent<|im_end|>", num_tokens=2),
        ),
    )


def test_the_headline_counts(audit: TokenAudit) -> None:
    assert audit.headline == "24 of 2,914 tokens are trained (0.8 %), in 6 examples"


def test_it_shows_the_tokens_and_not_hundreds_of_labels(audit: TokenAudit, capsys: pytest.CaptureFixture[str]) -> None:
    audit.show()
    shown = capsys.readouterr().out
    assert "What is <i>it</i>?⏎" in shown and "<image x 700>" in shown
    assert "and 5 labels more" in shown and "class 19" in shown and "class 20" not in shown


def test_the_page_holds_no_markup_of_the_data(audit: TokenAudit) -> None:
    page = audit.to_html()
    assert "<i>it</i>" not in page and "&lt;i&gt;it&lt;/i&gt;" in page


def test_it_is_saved_whole_and_has_every_label_in_its_frame(audit: TokenAudit, tmp_path: Path) -> None:
    assert TokenAudit.load(audit.save(tmp_path / "audit.json")) == audit
    assert audit.frame()["trained_text"].tolist() == list(audit.trained_text.values())
    assert len(audit.plot().axes) == 1
