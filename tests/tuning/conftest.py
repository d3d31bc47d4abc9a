import gc

import pytest
import torch
from small_network import Small

torch.set_num_threads(1)
gc.collect()
gc.freeze()  # accelerate collects at every new model: what torch loaded need not be walked through each time


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small()
