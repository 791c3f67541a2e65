"""Random numbers for tests, by seed."""

import torch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)
