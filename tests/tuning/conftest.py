import pytest
import torch
from small_network import Small

torch.set_num_threads(1)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small()
