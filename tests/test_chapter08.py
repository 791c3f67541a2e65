"""Chapter 8: what fairness is measured by, on a teacher that has hardly seen one class."""

from functools import partial

import pytest
import torch

from companion import data
from companion.losses import distillation_loss
from companion.metrics import accuracy, paired_interval
from companion.models import MLP
from companion.training import fit, teacher_logits

RARE = 8


@pytest.mark.erratum("T16")
def test_a_student_inherits_the_class_that_its_teacher_neglects():
    """Its own images are balanced; taught, it names the rare class less often than alone, as its teacher does."""
    right = {"teacher": [], "taught": [], "alone": []}
    for seed in range(5):
        train, _, test = data.digits(seed)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        mine, others = train[order[:300]], train[order[300:]]
        rare = (others.y == RARE).nonzero()[:2, 0]
        others = others[torch.cat([(others.y != RARE).nonzero()[:, 0], rare])]
        models = {name: MLP(64, 64, 10, seed=seed) for name in right}
        fit(models["teacher"], others, steps=300, lr=3e-3, seed=seed)
        soft = partial(distillation_loss, T=4, alpha=1)
        fit(models["taught"], mine, soft, models["teacher"], steps=300, lr=5e-3, seed=seed)
        fit(models["alone"], mine, steps=300, lr=5e-3, seed=seed)
        of_class = test[test.y == RARE]
        for name, model in models.items():
            right[name].append(accuracy(teacher_logits(model, of_class.x), of_class.y))
    assert paired_interval(right["alone"], right["teacher"]).low > 10
    assert paired_interval(right["alone"], right["taught"]).low > 10
