"""Trees behind prompts: what their nodes see, and that each is what it would be in a sequence of its own."""

from __future__ import annotations

import torch

from vlm_tune.vlm.fused import formulas, ops
from vlm_tune.vlm.fused.branches import Branches
from vlm_tune.vlm.fused.packing import attend, attend_from_tails

PARENTS = (-1, 0, 0, 1, 3)
"""The way to node 4 is 0, 1, 3; node 2 stands alone."""
ROUTES = ([0], [0, 1], [0, 2], [0, 1, 3], [0, 1, 3, 4])
TRUNK = 6


def test_nodes_see_the_prompt_and_what_leads_to_them() -> None:
    seen = Branches(PARENTS, torch.device("cpu")).seen(7, TRUNK + 5)
    assert seen[:2].tolist() == torch.ones(7, 11).tril(4)[:2].bool().tolist()
    for node, route in enumerate(ROUTES):
        assert seen[2 + node].nonzero()[:, 0].tolist() == [*range(TRUNK), *(TRUNK + one for one in route)]


def test_ancestors_reach_back_into_the_prompt() -> None:
    branches = Branches(PARENTS, torch.device("cpu"))
    assert branches.before(4).tolist() == [[0, 1, 2, 3, 4], [-1, 0, 0, 1, 3], [-2, -1, -1, 0, 1], [-3, -2, -2, -1, 0]]


def test_attention_of_a_node_is_that_of_its_own_sequence() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3 * (TRUNK + 5), heads, 8) for heads in (4, 2, 2))
    branches, runs = Branches(PARENTS, torch.device("cpu")), ((2, TRUNK + 5), (1, TRUNK + 5))
    whole = attend(query, key, value, runs, causal=True, branches=branches).view(3, TRUNK + 5, -1)
    asking = torch.cat([one.view(3, TRUNK + 5, 4, 8)[:, -7:].flatten(0, 1) for one in (query,)])
    tails = attend_from_tails(asking, key, value, runs, tail=7, branches=branches).view(3, 7, -1)
    assert torch.allclose(tails, whole[:, -7:], atol=1e-6)
    for number in range(3):
        for node, route in enumerate(ROUTES):
            rows = number * (TRUNK + 5) + torch.tensor([*range(TRUNK), *(TRUNK + one for one in route)])
            alone = attend(query[rows], key[rows], value[rows], ((1, len(rows)),), causal=True)
            assert torch.allclose(whole[number, TRUNK + node], alone[-1], atol=1e-6)


def test_convolution_at_a_node_is_that_of_its_own_sequence() -> None:
    torch.manual_seed(0)
    gates, filters = torch.randn(2, TRUNK + 5, 3 * 8), torch.randn(8, 4)
    branches = Branches(PARENTS, torch.device("cpu"))
    out = torch.zeros(2 * (TRUNK + 5), 8)
    ops.gated_conv_of_branches(out, gates.flatten(0, 1), filters, ((2, TRUNK + 5),), branches)
    found = out.view(2, TRUNK + 5, 8)
    assert not found[:, :TRUNK].any()
    for number in range(2):
        for node, route in enumerate(ROUTES):
            alone = gates[number, [*range(TRUNK), *(TRUNK + one for one in route)]]
            expected = formulas.gated_conv(alone, filters, torch.arange(len(alone)))[-1]
            assert torch.allclose(found[number, TRUNK + node], expected, atol=1e-5)
