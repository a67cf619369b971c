"""What one photo's record says in words and numbers."""

from __future__ import annotations

import math

from vlm_tune.audit import Suspect


def suspect(**fields: object) -> Suspect:
    known = {"example_id": "1.jpg", "label": "dent", "suggestion": "crack", "log_odds": 0.0}
    return Suspect.model_validate(known | fields)


def test_suspicion_is_the_probability_behind_the_odds() -> None:
    assert suspect().suspicion == 0.5
    assert math.isclose(suspect(log_odds=math.log(9)).suspicion, 0.9)
    assert suspect(log_odds=-1e6).suspicion < 1e-300


def test_the_margin_is_that_of_the_label_among_its_neighbours() -> None:
    assert suspect().vote_margin is None
    assert suspect(neighbours={"crack": 7, "dent": 3}).vote_margin == -0.4
    assert suspect(neighbours={"dent": 10}).vote_margin == 1.0


def test_agreed_is_what_everybody_and_every_copy_says() -> None:
    assert suspect(answers={"a": "dent"}).agreed
    assert not suspect().agreed
    assert not suspect(answers={"a": "dent", "b": "crack"}).agreed
    assert not suspect(answers={"a": "dent"}, copies={"2.jpg": "crack"}).agreed
    # Classifiers count where no system was asked, and a label more likely wrong than right never does.
    assert suspect(answers={"a": "dent", "least squares": "crack"}).agreed
    assert not suspect(answers={"nearest photos": "dent", "least squares": "crack"}).agreed
    assert not suspect(answers={"a": "dent"}, log_odds=1.0).agreed


def test_the_reason_names_what_speaks_against_the_label() -> None:
    found = suspect(answers={"a": "crack", "b": "dent"}, neighbours={"crack": 9, "dent": 1}, copies={"2.jpg": "crack"})
    assert found.reason == "1 of 2 disagree; 1 of 10 similar photos agree; a copy says crack"
    assert suspect(answers={"a": "dent"}).reason == "nothing speaks against it"
