"""Figures carry their numbers, never touch global state, and survive hostile or empty data."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vlm_tune import plots
from vlm_tune.plots import style
from vlm_tune.statistics import calibration_error, f1_scores, wilson


def _photos(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (40, 30), (20 * at % 255, 80, 120)) for at in range(count)]


EVERY_FIGURE: dict[str, Callable[[], Figure]] = {
    "accuracy_forest": lambda: plots.accuracy_forest(
        [("base", wilson(53, 98)), ("tuned", wilson(87, 98))], chance=1 / 3
    ),
    "class_scores": lambda: plots.class_scores(
        list(
            zip(
                ("crack", "dent", "rust"),
                f1_scores([[1, 1, 0], [1, 0, 0]], [[1, 0, 0], [1, 0, 0]]).per_class,
                strict=True,
            )
        )
    ),
    "confusion": lambda: plots.confusion([[30, 2, 1], [4, 25, 0]], ["crack", "dent"], accuracy=wilson(55, 62)),
    "similarity_histogram": lambda: plots.similarity_histogram([0.5, 0.7, 0.99], null=[0.4, 0.5], cut=0.9),
    "loss_curve": lambda: plots.loss_curve(
        [1, 2], [1.0, 0.5], validation=([2], [0.4]), accuracy=[(2, wilson(7, 8))], kept=2
    ),
    "token_spans": lambda: plots.token_spans(
        [("image", "<image x 713>"), ("masked", "What is it?\n$5 " + 30 * "or more "), ("trained", "dent")],
        caption="a.jpg",
    ),
    "class_balance": lambda: plots.class_balance({"train": {"crack": 9, "dent": 8}, "test": {"crack": 3}}),
    "paired_bar": lambda: plots.paired_bar(wins=10, losses=4, both_right=77, both_wrong=7),
    "modules_hit": lambda: plots.modules_hit([("vision attention", 4, 4), ("language attention", 0, 8)]),
    "score_differences": lambda: plots.score_differences(merged=[0.0, 0.01], base=[1.0, 2.0]),
    "learning_curve": lambda: plots.learning_curve(
        [(size, wilson(right, 98)) for size, right in ((25, 52), (25, 55), (50, 63), (100, 74), (319, 87))],
        trained=[(25, 1.0), (319, 0.99)],
        band=plots.CurveBand([25, 100, 400], [0.54, 0.72, 0.85], [0.4, 0.6, 0.7], [0.6, 0.8, 0.95]),
        fitted_until=100,
        chance=1 / 3,
        against={"Gemini $3": wilson(81, 98)},
    ),
    "difference_matrix": lambda: plots.difference_matrix(
        ["tuned", "Gemini $3"], values=[[0, 0.061], [-0.061, 0]], established=[[False, True], [True, False]]
    ),
    "power_curve": lambda: plots.power_curve([(50, 0.1), (100, 0.3), (400, 0.9)], at=(100, 0.3)),
    "reliability": lambda: plots.reliability(calibration_error([0.9, 0.6, 0.95, 0.7], [1, 0, 1, 1])),
    "risk_coverage": lambda: plots.risk_coverage([0.5, 1.0], [1.0, 0.9], [0.8, 0.7], [1.0, 0.97], at=0.5, wanted=0.95),
    "cascade": lambda: plots.cascade(
        [0.65, 0.3, 0.05], [0.8, 0.9, 0.85], [0.7, 0.8, 0.75], [0.9, 1, 0.95], at=0.3, names=("tuned", "$3"), usd=0.6
    ),
    "image_grid": lambda: plots.image_grid(_photos(7), ["a.jpg"] * 7),
    "pair_grid": lambda: plots.pair_grid(list(zip(_photos(3), _photos(3), strict=True)), [("a", "b")] * 3),
}


def _words(figure: Figure) -> str:
    return " ".join(ET.fromstring(plots.figure_to_svg(figure)).itertext())


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_becomes_png_and_the_same_svg_each_time(name: str) -> None:
    draw = EVERY_FIGURE[name]
    before = dict(mpl.rcParams)
    with Image.open(io.BytesIO(plots.figure_to_png(draw()))) as picture:
        assert picture.width > 200
    assert plots.figure_to_svg(draw()) == plots.figure_to_svg(draw())
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_no_words_are_black_since_a_dark_page_would_hide_them(name: str) -> None:
    texts = re.findall(r"<text[^>]*>", plots.figure_to_svg(EVERY_FIGURE[name]()))
    assert [text for text in texts if "fill: #" not in text] == []


def test_every_public_figure_is_covered_above() -> None:
    helpers = {"CurveBand", "colours", "palette", "figure_to_png", "figure_to_svg"}
    assert set(plots.__all__) - helpers == set(EVERY_FIGURE)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("accuracy_forest", ["88.8 % [81.0, 93.6]", "n = 98", "chance", "tuned"]),
        ("confusion", ["88.7 % [78.5, 94.4]", "n = 62", "30", "no answer", "truth"]),
        ("class_scores", ["100.0 % [51.0, 100.0] n = 2", "0.0 % [0.0, 88.5] n = 1", "rust", "recall"]),
        ("similarity_histogram", ["n = 3", "cut 0.900, 1 above"]),
        ("class_balance", ["train n = 17", "test n = 3"]),
        ("paired_bar", ["+6.1 points [-1.5, +14.4]", "n = 98", "only candidate: 10", "both wrong: 7"]),
        ("loss_curve", ["on 8 validation examples with 95 % intervals", "kept: step 2", "nats per token"]),
        ("modules_hit", ["4 of 12", "0 of 8"]),
        ("difference_matrix", ["+6.1", "-6.1", "Gemini $3", "established after Holm's correction"]),
        ("power_curve", ["n = 100: 30%", "test images"]),
        ("reliability", ["95 % of perfectly calibrated models", "n = 4"]),
        ("risk_coverage", ["wanted: 95%", "threshold: 50% alone", "95 % interval"]),
        ("cascade", ["tuned alone", "$3 alone", "US dollars for a thousand images", "95 % band"]),
        (
            "learning_curve",
            [
                "n = 98 test images, 95 % intervals",
                "chance, 33.3 %",
                "Gemini $3, 82.7 % [74.0, 88.9]",
                "forecast with 95 % band",
                "the same, unknown to the forecast",
                "on the training images",
                "400",
            ],
        ),
        ("token_spans", ["a.jpg", "<image x 713>", "$5 or more", "dent", "image, not trained"]),
    ],
)
def test_figures_say_their_sample_size_and_interval(name: str, words: list[str]) -> None:
    text = " ".join(_words(EVERY_FIGURE[name]()).split())
    assert [word for word in words if word not in text] == []


def test_a_predictor_keeps_its_colour_and_no_two_share_one() -> None:
    names = ["majority", "base", "gemini", "tuned", "clip", "random", "other"]
    chosen = plots.colours(names)
    assert len(set(chosen.values())) == len(names)
    assert chosen["majority"] == plots.palette("majority") == plots.colours(["majority"])["majority"]
    assert set(plots.colours(map(str, range(40)))) == set(map(str, range(40)))


@pytest.mark.parametrize("background", ["#ffffff", "#15181c"])
def test_predictor_colours_stand_out_on_light_and_dark(background: str) -> None:
    used = set(plots.colours(map(str, range(40))).values())
    assert min(_contrast(colour, background) for colour in used) >= 3


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_labels_are_drawn_as_they_stand() -> None:
    hostile = ["$\\frac{", "a$b$c", "<script>alert(1)</script>", "two\nlines", "x" * 200]
    figure = plots.confusion(np.eye(5, 6, dtype=int), hostile, title="$x_1$ <b>")
    text = _words(figure)
    assert "a$b$c" in text
    assert "$x_1$ <b>" in text
    assert "x" * 100 not in text
    plots.figure_to_png(figure)


def test_empty_data_still_draws() -> None:
    for figure in (
        plots.accuracy_forest([]),
        plots.similarity_histogram([]),
        plots.loss_curve([], []),
        plots.class_balance({}),
        plots.class_scores([]),
        plots.paired_bar(wins=0, losses=0, both_right=0, both_wrong=0),
        plots.image_grid([], []),
        plots.modules_hit([]),
    ):
        assert plots.figure_to_png(figure, dpi=40)


def test_many_classes_leave_the_counts_out() -> None:
    counts = np.eye(60, 61, dtype=int) * 12345
    assert "12345" not in _words(plots.confusion(counts, [f"class {at}" for at in range(60)]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 classes need 2 x 3 counts, got \(2, 2\)"):
        plots.confusion([[1, 2], [3, 4]], ["crack", "dent"])
    with pytest.raises(ValueError, match="2 images need as many captions, got 1"):
        plots.image_grid(_photos(2), ["one"])


def test_importing_plots_does_not_import_matplotlib() -> None:
    code = "import sys, vlm_tune.plots; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_title_is_not_broken_within_its_sample_size() -> None:
    for width in range(20, 60):
        lines = style._wrapped("tuned against base: +33.7 points [+22.5, +44.5], n = 98", width).split("\n")
        assert sum("n = 98" in line for line in lines) == 1
        assert max(map(len, lines)) <= width
