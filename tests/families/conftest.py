"""Every architecture in turn."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from tests.families.architectures import PUBLISHED, published


@pytest.fixture(params=sorted(PUBLISHED))
def skeleton(request: pytest.FixtureRequest) -> PreTrainedModel:
    """The skeleton of each architecture in turn."""
    return published(request.param)
