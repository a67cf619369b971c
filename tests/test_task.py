from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vlm_tune.errors import TaskError, UnknownLabelError
from vlm_tune.task import Task

DAMAGE = Task(
    prompt="What is damaged?",
    classes=("crack", "dent", "paint scratch"),
    aliases={"dent": ("Delle", "ding")},
    multi_label=True,
)
TASK = Task(
    prompt="  What kind of damage is it? ",
    classes=("crack", "dent", "paint scratch"),
    aliases={"dent": ("Delle", "ding")},
    descriptions={"crack": "a line where the panel is broken through"},
)


class TestConstruction:
    @pytest.mark.parametrize(
        "arguments, reason",
        [
            ({"prompt": "?", "classes": ()}, "at least two classes, got 0"),
            ({"prompt": "?", "classes": ("a",)}, "at least two classes, got 1"),
            ({"prompt": " ", "classes": ("a", "b")}, "prompt is empty"),
            ({"prompt": "?", "classes": ("a", "b", "a")}, "classes must differ"),
            ({"prompt": "?", "classes": ("a", " A ")}, "classes must differ"),
            ({"prompt": "?", "classes": ("paint scratch", "paint  Scratch")}, "classes must differ"),
            ({"prompt": "?", "classes": ("a", "")}, "empty name"),
            ({"prompt": "?", "classes": ("a", "...")}, "empty name"),
            (
                {"prompt": "?", "classes": ("a", "b"), "aliases": {"a": ("B",)}},
                "names both 'b' and 'a'|'a' and 'b'",
            ),
            ({"prompt": "?", "classes": ("a", "b"), "aliases": {"a": ("",)}}, "empty name or alias"),
            ({"prompt": "?", "classes": ("a", "b"), "max_pixels": 0}, "Task.max_pixels"),
            ({"prompt": "?", "classes": ("a", "b"), "max_pixel": 9}, "Task.max_pixel"),
            ({"classes": ("a", "b")}, "Task.prompt"),
        ],
    )
    def test_a_malformed_task_is_refused(self, arguments: dict[str, object], reason: str) -> None:
        with pytest.raises(TaskError, match=reason):
            Task(**arguments)

    @pytest.mark.parametrize("field", ["aliases", "descriptions"])
    def test_mappings_about_unknown_classes_list_the_nearest(self, field: str) -> None:
        value = {"Dent": ("x",)} if field == "aliases" else {"Dent": "x"}
        with pytest.raises(UnknownLabelError, match=rf"Task\.{field}: label 'Dent' .*did you mean 'dent'"):
            Task(**{"prompt": "?", "classes": ("crack", "dent"), field: value})

    def test_it_is_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            TASK.prompt = "else"

    def test_an_alias_may_repeat_its_own_class(self) -> None:
        assert Task(prompt="?", classes=("a", "b"), aliases={"a": ("A", "a ")}).canonical("A") == "a"


class TestPrompt:
    def test_it_names_descriptions_and_classes_in_order(self) -> None:
        assert TASK.render() == (
            "What kind of damage is it?\n"
            "- crack: a line where the panel is broken through\n"
            "Answer with one of: crack, dent, paint scratch."
        )


class TestFingerprint:
    def test_it_changes_with_everything(self) -> None:
        changes = [
            {"prompt": "Which?"},
            {"classes": ("dent", "crack", "paint scratch")},
            {"aliases": {}},
            {"descriptions": {}},
            {"max_pixels": 100},
            {"multi_label": True},
        ]
        fingerprints = {Task(**{**TASK.model_dump(), **change}).fingerprint for change in changes}
        assert len(fingerprints | {TASK.fingerprint}) == 7

    def test_it_is_the_same_in_another_process(self) -> None:
        made = f"Task.model_validate_json({TASK.model_dump_json()!r})"
        code = f"from vlm_tune.task import Task; print({made}.fingerprint)"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert shown.strip() == TASK.fingerprint


class TestCanonical:
    def test_names_and_aliases_exactly(self) -> None:
        assert [TASK.canonical(name) for name in ("dent", "Delle", "paint scratch")] == [
            "dent",
            "dent",
            "paint scratch",
        ]

    @pytest.mark.parametrize(
        "slip, meant",
        [("Dent", "dent"), ("dent ", "dent"), ("paint  scratch", "paint scratch"), ("crak", "crack")],
    )
    def test_a_slip_lists_the_nearest(self, slip: str, meant: str) -> None:
        with pytest.raises(UnknownLabelError) as caught:
            TASK.canonical(slip, where="row 7")
        assert caught.value.nearest[0] == meant
        assert str(caught.value).startswith("row 7: ")


class TestParse:
    @pytest.mark.parametrize(
        "text, label",
        [
            ("dent", "dent"),
            ("Dent.", "dent"),
            ("**Dent**", "dent"),
            ('"crack"\n', "crack"),
            ("Answer: crack", "crack"),
            ("The answer is crack", None),
            ("answer is: crack.", "crack"),
            ("Paint\n  scratch!", "paint scratch"),
            ("DING", "dent"),
            ("It is a dent", None),
            ("dent or crack", None),
            ("dents", None),
            ("not dent", None),
            ("", None),
            ("...", None),
        ],
    )
    def test_only_exact_words_are_an_answer(self, text: str, label: str | None) -> None:
        assert TASK.parse(text) == label

    def test_a_class_that_begins_with_answer_keeps_its_name(self) -> None:
        task = Task(prompt="?", classes=("answer", "is missing", "missing"))
        assert [task.parse(name) for name in task.classes] == list(task.classes)

    @given(
        st.lists(st.text("abcXYZ 0-_é", min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
        st.data(),
    )
    def test_every_class_parses_to_itself(self, classes: list[str], data: st.DataObject) -> None:
        try:
            task = Task(prompt="?", classes=tuple(classes))
        except TaskError:
            return
        label = data.draw(st.sampled_from(classes))
        assert task.parse(label) == label
        assert task.parse(f" {label}. ") == label
        assert task.canonical(label) == label


class TestSeveralClasses:
    @pytest.mark.parametrize(
        "classes, reason",
        [
            (("crack", "None."), "'None.' is taken: it answers that none of the classes applies"),
            (("crack", "dent, deep"), "'dent, deep' reads like part of a list"),
            (("wear and tear", "dent"), "'wear and tear' reads like part of a list"),
            (("crack", "dent,"), "'dent,' reads like part of a list"),
            (("crack", " dent"), "' dent' reads like part of a list"),
        ],
    )
    def test_names_that_a_list_could_not_hold_are_refused(self, classes: tuple[str, ...], reason: str) -> None:
        assert Task(prompt="?", classes=classes).classes == classes
        with pytest.raises(TaskError, match=reason):
            Task(prompt="?", classes=classes, multi_label=True)
        with pytest.raises(TaskError, match=reason):
            Task(
                prompt="?",
                classes=("a", "b"),
                aliases={"a": (next(c for c in classes if c in reason),)},
                multi_label=True,
            )

    def test_the_prompt_asks_for_the_list_that_is_the_answer(self) -> None:
        assert DAMAGE.render() == (
            "What is damaged?\n"
            "Answer with all that apply, in this order: crack, dent, paint scratch.\n"
            "Separate them by commas. If none applies, answer: none."
        )

    def test_answers_are_all_lists_the_short_ones_first(self) -> None:
        assert DAMAGE.answers == (
            "none",
            "crack",
            "dent",
            "paint scratch",
            "crack, dent",
            "crack, paint scratch",
            "dent, paint scratch",
            "crack, dent, paint scratch",
        )
        assert TASK.answers == TASK.candidates(["dent"]) == TASK.classes
        assert DAMAGE.candidates(["dent"]) == DAMAGE.answers

    def test_too_many_answers_are_not_listed_but_a_few_can_be_told_apart(self) -> None:
        names = tuple("abcdefghijk")
        assert len(Task(prompt="?", classes=names[:10], multi_label=True).answers) == 1024
        many = Task(prompt="?", classes=names, multi_label=True)
        with pytest.raises(TaskError, match=r'11 classes has 2,048 possible answers.*answer="generate"'):
            many.answers
        assert many.candidates(["b, d", "a"]) == ("none", *names, ", ".join(names), "b, d")

    @pytest.mark.parametrize(
        "label, answer",
        [
            ("dent", "dent"),
            ("paint scratch,crack", "crack, paint scratch"),
            ("ding, Delle", "dent"),
            ("none", "none"),
        ],
    )
    def test_a_label_is_brought_into_the_tasks_order(self, label: str, answer: str) -> None:
        assert DAMAGE.canonical(label) == answer
        assert DAMAGE.is_answer(answer)
        assert DAMAGE.is_answer(label) == (label == answer)

    @pytest.mark.parametrize("label", ["Dent", "dent and crack", "dent, none", "dent,", "", "None", "dent; crack"])
    def test_a_slip_in_a_label_is_refused(self, label: str) -> None:
        with pytest.raises(UnknownLabelError, match="row 7: "):
            DAMAGE.canonical(label, where="row 7")
        assert not DAMAGE.is_answer(label)

    @pytest.mark.parametrize(
        "text, answer",
        [
            ("Dent and crack.", "crack, dent"),
            ("crack, dent, and paint scratch", "crack, dent, paint scratch"),
            ("- dent\n- crack", None),
            ("dent\ncrack\n", "crack, dent"),
            ("Answer: ding; dent", "dent"),
            ('["dent", "crack"]', "crack, dent"),
            ("None.", "none"),
            ("answer: none", "none"),
            ("none, crack", None),
            ("crack, rust", None),
            ("There is a dent and a crack", None),
            ("", None),
            (",", None),
        ],
    )
    def test_only_a_plain_list_of_classes_is_an_answer(self, text: str, answer: str | None) -> None:
        assert DAMAGE.parse(text) == answer

    def test_joining_checks_what_is_joined(self) -> None:
        assert DAMAGE.join(["dent", "crack", "dent"]) == "crack, dent"
        with pytest.raises(UnknownLabelError, match="did you mean 'dent'"):
            DAMAGE.join(["dents"])
        assert TASK.join(["dent"]) == "dent"
        for wrong in ([], ["dent", "crack"]):
            with pytest.raises(TaskError, match="one class, not"):
                TASK.join(wrong)

    def test_a_task_of_one_class_each_knows_its_answers_too(self) -> None:
        assert TASK.members("dent") == ("dent",)
        assert TASK.is_answer("dent")
        assert not TASK.is_answer("ding")

    @given(
        st.lists(st.text("abcXYZ 0-_é.,&", min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
        st.data(),
    )
    def test_every_set_of_classes_comes_back(self, classes: list[str], data: st.DataObject) -> None:
        try:
            task = Task(prompt="?", classes=tuple(classes), multi_label=True)
        except TaskError:
            return
        chosen = data.draw(st.lists(st.sampled_from(classes), unique=True))
        answer = task.join(chosen)
        assert set(task.members(answer)) == set(chosen)
        assert task.join(task.members(answer)) == answer == task.canonical(answer) == task.parse(answer)
        assert task.parse(" and ".join(chosen) or "none") == answer
        assert answer in task.answers
        assert len(set(task.answers)) == 2 ** len(classes)
