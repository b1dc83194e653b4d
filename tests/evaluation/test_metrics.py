"""Image, flow and depth metrics; LPIPS without network."""

import math
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from semflow_nerfstudio.evaluation import metrics
from semflow_nerfstudio.evaluation.segmentation import mean_over_images


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(48, 64, 3, generator=generator)
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def test_psnr_by_hand():
    truth = torch.full((4, 5, 3), 0.5)
    assert float(metrics.psnr(truth + 0.1, truth)) == pytest.approx(20.0, abs=1e-4)
    assert math.isinf(float(metrics.psnr(truth, truth)))


def test_psnr_as_nerfstudios(images):
    from torchmetrics.image import PeakSignalNoiseRatio

    assert float(metrics.psnr(*images)) == pytest.approx(float(PeakSignalNoiseRatio(data_range=1.0)(*images)), abs=1e-5)


def test_dynamic_psnr_sees_the_mask_only():
    truth = torch.full((4, 5, 3), 0.5)
    prediction = truth + 0.4
    prediction[1:3, 1:3] = 0.51
    mask = torch.zeros(4, 5, dtype=torch.bool)
    assert math.isnan(float(metrics.dynamic_psnr(prediction, truth, mask)))
    mask[1:3, 1:3] = True
    assert float(metrics.dynamic_psnr(prediction, truth, mask)) == pytest.approx(40.0, abs=1e-3)


def test_ssim_against_its_definition(images):
    """Wang et al. 2004 with a Gaussian window of sigma 1.5, in plain float64."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def blur(image):
        patches = torch.from_numpy(image).unfold(0, 11, 1).unfold(1, 11, 1).numpy()
        return np.einsum("ijcab,ab->ijc", patches, window)

    x, y = (image.double().numpy() for image in images)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    assert float(metrics.ssim(*images)) == pytest.approx(expected.mean(), abs=1e-5)
    assert float(metrics.ssim(images[1], images[1])) == pytest.approx(1.0, abs=1e-6)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache, no network, and no network kept from other tests."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    metrics._lpips_network.cache_clear()
    yield tmp_path
    torch.hub.set_dir(before)
    metrics._lpips_network.cache_clear()


@pytest.fixture
def alexnet_features():
    """AlexNet's convolutions with random weights."""
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return alexnet(weights=None).features


def save_features(features, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)


def test_lpips_without_weights_is_left_out_and_says_so_once(hub, images, capsys):
    assert metrics.lpips(*images) is None
    assert metrics.lpips(*images) is None
    said = capsys.readouterr().out
    assert said.count("LPIPS is left out") == 1
    assert str(hub) in said
    assert list(hub.iterdir()) == []


def test_lpips_with_a_broken_file_is_left_out(hub, images, capsys):
    path = metrics.alexnet_cache_path()
    path.parent.mkdir()
    path.write_bytes(b"half a download")
    assert metrics.lpips(*images) is None
    assert "no AlexNet checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("given_path", [False, True])
def test_lpips_as_torchmetrics(hub, images, alexnet_features, monkeypatch, given_path):
    import torchmetrics.functional.image.lpips as reference

    path = hub / "mine.pth" if given_path else metrics.alexnet_cache_path()
    save_features(alexnet_features, path)
    state = torch.random.get_rng_state()
    value = metrics.lpips(*images, weights=path if given_path else None)
    assert torch.equal(state, torch.random.get_rng_state())

    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *args, **kwargs: alexnet_features)
    batches = [image.permute(2, 0, 1)[None] for image in images]
    expected = reference.learned_perceptual_image_patch_similarity(*batches, net_type="alex", normalize=True)
    assert value is not None
    assert float(value) == pytest.approx(float(expected), abs=1e-6)
    assert float(value) > 0
    same = metrics.lpips(images[1], images[1], path)
    assert same is not None
    assert float(same) == 0.0


def test_flow_end_point_error():
    truth = torch.zeros(2, 3, 2)
    prediction = torch.zeros(2, 3, 2)
    prediction[0, 0] = torch.tensor([3.0, 4.0])
    assert float(metrics.flow_end_point_error(prediction, truth)) == pytest.approx(5 / 6)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    assert math.isnan(float(metrics.flow_end_point_error(prediction, truth, mask)))
    mask[0, :2] = True
    assert float(metrics.flow_end_point_error(prediction, truth, mask)) == pytest.approx(2.5)


def test_depth_relative_error_leaves_out_unknown_depth():
    truth = torch.tensor([1.0, 2.0, math.nan, math.inf, 0.0, 4.0])
    prediction = torch.tensor([1.1, 1.8, 1.0, 1.0, 1.0, 4.0])
    assert float(metrics.depth_relative_error(prediction, truth)) == pytest.approx(0.2 / 3)
    mask = torch.tensor([False, False, True, True, True, True])
    assert float(metrics.depth_relative_error(prediction, truth, mask)) == 0.0
    assert math.isnan(float(metrics.depth_relative_error(prediction, truth, mask & (truth < 1))))


def test_copy_baseline():
    image = torch.full((2, 2, 3), 0.5)
    labels = torch.tensor([[0, 0], [1, 255]], dtype=torch.uint8)
    truth = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)
    scores = metrics.copy_baseline(image + 0.1, labels, image, truth)
    assert scores["copy_psnr"] == pytest.approx(20.0, abs=1e-4)
    # Class 0: 1 of 2; class 1: 1 of 3 (the unlabelled training pixel is a miss).
    assert scores["copy_miou"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert math.isnan(metrics.copy_baseline(image, None, image, truth)["copy_miou"])


def test_copy_baseline_of_courtyard(test_data):
    """Naive figures that the test data's description states for 132 novel views: mIoU .585, PSNR 19.6."""
    scene = test_data / "rendered" / "Courtyard"
    lines = (test_data / "rendered" / "labelmap.txt").read_text().splitlines()[1:]
    palette = [np.array(line.split(":")[1].split(","), dtype=np.int64) for line in lines]
    ids = {int(colour @ [65536, 256, 1]): index for index, colour in enumerate(palette)}

    def image(path):
        return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).float() / 255

    def labels(path):
        colours, inverse = np.unique(
            np.asarray(Image.open(path).convert("RGB")).astype(np.int64) @ [65536, 256, 1], return_inverse=True
        )
        return np.array([ids[int(colour)] for colour in colours], np.uint8)[inverse].reshape(270, 480)

    scores = []
    for time in range(12):
        train = image(scene / f"images/{time:03d}.png"), labels(scene / f"SegmentationClass_train/{time:03d}.png")
        for camera in set(range(12)) - {time}:
            view = f"{time + 1:08d}/cam{camera + 1:02d}"
            truth = (
                image(scene / f"multiview_GT/{view}.jpg"),
                labels(scene / f"multiview_GT_semantic/{view}.png"),
            )
            scores.append(metrics.copy_baseline(*train, *truth))
    assert len(scores) == 132
    means = mean_over_images(scores)
    assert means["copy_miou"] == pytest.approx(0.585, abs=5e-4)
    assert means["copy_psnr"] == pytest.approx(19.6, abs=0.05)
