"""Safeguards of a training: what is not finite is named and never saved, what is frozen is not trained."""

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from calmctl.errors import CalmctlError
from calmctl.training.safeguards import DivergenceWatch, FrozenBases, check_optimizer
from tests.models import composed


def test_divergence_is_found_where_it_begins():
    watch = DivergenceWatch()
    for step, (loss, norm) in enumerate([(1.0, 1.0), (1.0, float("inf")), (float("nan"), float("nan"))], start=1):
        watch.begin(step, np.arange(10 * step, 10 * step + 10))
        watch.add_loss(torch.tensor(loss))
        watch.add_gradient_norm(torch.tensor(norm))
    with pytest.raises(CalmctlError, match="step 2: the gradient is not finite after rows 20, .*, 27 and 2 more of"):
        watch.check_losses()


def test_parameters_that_are_not_finite_are_not_saved():
    watch = DivergenceWatch()
    watch.begin(1, np.array([4, 4, 2]))
    watch.add_loss(torch.tensor(1.0))
    watch.check_losses()
    watch.check_parameters([torch.ones(2), torch.zeros(3)])
    with pytest.raises(CalmctlError, match="step 1: the trained parameters are not finite after rows 2, 4 of"):
        watch.check_parameters([torch.ones(2), torch.tensor([0.0, float("inf")])])


def test_an_optimizer_holds_what_is_trained_and_nothing_else():
    model = composed()
    own = list(model.composition_parameters().values())
    check_optimizer(AdamW(own), model)
    frozen = next(model.anchor.parameters())
    with pytest.raises(CalmctlError, match="^anchor.* is in the optimizer, but frozen"):
        check_optimizer(AdamW([*own, frozen]), model)
    with pytest.raises(CalmctlError, match="^bridges.* is to be trained, but not in the optimizer"):
        check_optimizer(AdamW(own[1:]), model)
    frozen.requires_grad_()
    with pytest.raises(CalmctlError, match="^anchor.* is a base's parameter and not frozen"):
        check_optimizer(AdamW([*own, frozen]), model)


def test_bases_of_a_checkpoint_have_to_be_the_same():
    model = composed()
    before = FrozenBases(model).fingerprints
    FrozenBases(model).check_same_as(before)
    with torch.no_grad():
        next(model.augs.parameters())[0, 0] += 1e-3
    with pytest.raises(CalmctlError, match="the aug 0 is not the one this run was started with"):
        FrozenBases(model).check_same_as(before)
