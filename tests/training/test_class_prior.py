"""Classes that no label names, and rays that see nothing."""

import pytest
import torch

from semflow_nerfstudio.scene_frames import IGNORE_LABEL, NEVER
from semflow_nerfstudio.training.class_prior import ClassPrior


def prior(*labels: int) -> ClassPrior:
    module = ClassPrior(3)
    module.update(torch.tensor(labels, dtype=torch.uint8))
    return module


def test_counts_leave_unlabelled_pixels_out() -> None:
    module = prior(1, 2, 2, IGNORE_LABEL)
    module.update(torch.tensor([2, IGNORE_LABEL]))
    assert module.counts.tolist() == [0, 1, 3]


def test_counts_go_on_beyond_what_single_ones_can_be_added_to() -> None:
    module = prior(1)
    module.counts[1] = 2.0**24
    module.update(torch.ones(4096, dtype=torch.long))
    assert module.counts[1] == 2.0**24 + 4096


def test_a_class_without_labels_is_never_the_answer() -> None:
    logits = torch.tensor([[5.0, 1.0, 0.0], [0.0, -3.0, -2.0]])
    seen = prior(1, 2, 2)(logits, torch.zeros(2))
    assert seen.argmax(-1).tolist() == [1, 2]
    assert seen[:, 0].tolist() == [NEVER, NEVER]
    assert torch.equal(seen[:, 1:], logits[:, 1:]), "where something is seen the others stay as they are"


def test_where_nothing_is_seen_the_most_frequent_class_is() -> None:
    seen = prior(1, 2, 2, 2)(torch.zeros(1, 3), torch.ones(1))
    assert seen.softmax(-1)[0].tolist() == pytest.approx([0, 0.25, 0.75])


def test_nothing_changes_before_anything_is_counted() -> None:
    logits = torch.randn(4, 3)
    assert torch.equal(ClassPrior(3)(logits, torch.rand(4)), logits)
