"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("attentus", deadline=None)  # a busy machine is no failure
settings.load_profile("attentus")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny tensors gain nothing from threads, and lose minutes where other work keeps the processors busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
