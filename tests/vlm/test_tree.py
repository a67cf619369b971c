from __future__ import annotations

import itertools

from vlm_tune.vlm.tree import AnswerTree


def test_every_answer_is_the_tokens_of_its_steps() -> None:
    answers = [(5, 2), (5, 6, 2), (7, 2), (5, 6, 8, 2), (9,)]
    tree = AnswerTree.of(answers)
    for answer, path in zip(answers, tree.paths, strict=True):
        assert tuple(tree.steps[step][1] for step in path) == answer
        nodes = [tree.steps[step][0] for step in path]
        assert nodes[0] == 0
        # Each step starts where the one before it has led.
        for node, before, token in zip(nodes[1:], nodes, answer, strict=False):
            assert tree.parents[node] == before
            assert tree.tokens[node - 1] == token
        assert [tree.depths[node] for node in nodes] == list(range(len(nodes)))


def test_what_answers_begin_with_alike_is_there_once() -> None:
    # One token a class, one for the comma, one for the end: 1,023 lists of ten classes.
    sets = [chosen for size in range(1, 11) for chosen in itertools.combinations(range(10), size)]
    answers = [(*[token for index in chosen for token in (50, 100 + index)][1:], 2) for chosen in sets]
    tree = AnswerTree.of(answers)
    # Every list is a node; so is every list that something may follow, with a comma behind it.
    assert len(tree.parents) == 1 + 1023 + (1023 - 512)
    assert all(parent < node for node, parent in enumerate(tree.parents))
