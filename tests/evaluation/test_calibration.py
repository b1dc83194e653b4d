"""Expected calibration error against a plain loop, and a temperature that is found from labels."""

import math

import pytest
import torch

from semflow_nerfstudio.evaluation.calibration import (
    calibration_histogram,
    confidence_histogram,
    expected_calibration_error,
)
from semflow_nerfstudio.scene_frames import IGNORE_LABEL
from semflow_nerfstudio.training.calibration import Calibration


def plain_error(confidences: list[float], right: list[bool], bins: int) -> float:
    """Guo et al. 2017, equation 3, in a plain loop."""
    total = 0.0
    for m in range(bins):
        members = [i for i, c in enumerate(confidences) if m / bins <= c < (m + 1) / bins or (m == bins - 1 and c >= 1)]
        if members:
            accuracy = sum(right[i] for i in members) / len(members)
            confidence = sum(confidences[i] for i in members) / len(members)
            total += len(members) / len(confidences) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_error_is_that_of_a_plain_loop(bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(400, generator=generator, dtype=torch.float64)
    right = torch.rand(400, generator=generator) < 0.4 + 0.3 * confidence
    confidence[:3] = torch.tensor([0.0, 1.0, 1.0])
    expected = plain_error(confidence.tolist(), right.tolist(), bins)
    halves = [confidence_histogram(confidence[part], right[part], bins) for part in (slice(150), slice(150, None))]
    assert expected > 0.01 and expected_calibration_error(sum(halves, torch.zeros(bins, 3))) == pytest.approx(expected)


def test_expected_calibration_error_by_hand() -> None:
    # Confidences .9 (right), .8 (wrong), .8 (right) and an unlabelled pixel; five bins put .8 and .9 in one.
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.5, 0.5]], dtype=torch.float64)
    truth = torch.tensor([0, 1, 0, 255], dtype=torch.uint8)
    histogram = calibration_histogram(probabilities, truth, bins=5)
    assert histogram.tolist() == [[0, 0, 0]] * 4 + [[3, pytest.approx(2.5), 2]]
    assert expected_calibration_error(histogram) == pytest.approx(abs(2 / 3 - 2.5 / 3))
    # Two more certain and right pixels, from another image.
    other = calibration_histogram(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), torch.tensor([[1, 0]]), bins=5)
    assert expected_calibration_error(histogram + other) == pytest.approx(abs(4 - 4.5) / 5)
    assert math.isnan(expected_calibration_error(torch.zeros(5, 3)))


def test_calibration_tells_calibrated_from_overconfident() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.softmax(3 * torch.randn(50000, 4, generator=generator), dim=-1)
    truth = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    sharpened = torch.softmax(4 * probabilities.log(), dim=-1)
    assert expected_calibration_error(calibration_histogram(probabilities, truth)) < 0.01
    assert expected_calibration_error(calibration_histogram(sharpened, truth)) > 0.1


# ---------------------------------------------------------------- temperature


def labels_of(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Labels drawn with the probabilities that the logits have at a temperature."""
    generator = torch.Generator().manual_seed(1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 5.0])
def test_the_temperature_is_found_and_the_error_vanishes(temperature: float) -> None:
    logits = 4 * torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0)) * temperature
    logits = logits if temperature < 1 else logits.clamp(-15, 15)
    labels = labels_of(logits, temperature)
    calibration = Calibration()
    before = expected_calibration_error(calibration_histogram(logits.softmax(-1), labels))
    for _ in range(400):
        rows = torch.randperm(20_000)[:1000]
        calibration.update(logits[rows], labels[rows])
    found = 1 / calibration.inverse_temperature.item()
    after = expected_calibration_error(calibration_histogram(calibration(logits).softmax(-1), labels))
    assert found == pytest.approx(temperature, rel=0.1)
    assert after < 0.015 and (after < before / 3 or temperature == 1.0)
    assert torch.equal(calibration(logits).argmax(-1), logits.argmax(-1))


def test_unlabelled_rays_do_not_count() -> None:
    logits = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1], dtype=torch.uint8)
    some, other, none = Calibration(), Calibration(), Calibration()
    some.update(logits, labels)
    other.update(
        torch.cat([logits, torch.tensor([[9.0, -9.0]])]), torch.cat([labels, labels.new_tensor([IGNORE_LABEL])])
    )
    none.update(logits, torch.full((3,), IGNORE_LABEL, dtype=torch.uint8))
    assert some.inverse_temperature != 1 and torch.equal(some.inverse_temperature, other.inverse_temperature)
    assert none.inverse_temperature == 1


def test_a_perfect_prediction_grows_surer_and_stays_finite() -> None:
    logits, labels = torch.tensor([[20.0, -20.0]] * 8), torch.zeros(8, dtype=torch.long)
    calibration = Calibration()
    for _ in range(300):
        calibration.update(logits, labels)
    assert 1 <= calibration.inverse_temperature.item() <= 50
    calibration.update(torch.zeros(8, 2), labels)
    assert calibration.inverse_temperature.isfinite()


def test_calibration_takes_no_part_in_training() -> None:
    calibration, logits = Calibration(), torch.randn(6, 3, requires_grad=True)
    calibration.update(logits, torch.zeros(6, dtype=torch.long))
    assert not list(calibration.parameters()) and not calibration.inverse_temperature.requires_grad
    assert math.isfinite(calibration(logits).sum().item()) and "inverse_temperature" in calibration.state_dict()
