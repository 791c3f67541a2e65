"""Claims, numbers for the prose, and exercises that check themselves.

An exercise's check runs the reader's function on random inputs beside the right one. If they differ, it
looks among the mistakes people really make for one that gives the same result, and prints that one's hint.
"""

from ._claims import claim, glue
from .concepts import cost, information, transfer_information
from .conventions import row_mean_over_mean, same_training
from .experiments import long_tail_worst_class, paired_interval, permute_dark
from .outlook import balanced_targets, regret
from .responses import (
    average_teachers,
    distillation_loss,
    high_temperature_loss,
    kd_gradient,
    kd_loss,
    masked_mean,
    soften,
    training_step,
)
