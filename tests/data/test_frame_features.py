"""Frozen frame encoders with weights that the tests make up: geometry, freezing, compression, cache, fallback."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import random_frames
from torch import Tensor, nn
from torchvision import models

from semflow_nerfstudio.data import frame_features as ff
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.frame_features import (
    Clip,
    FrameFeaturesConfig,
    frame_features,
    missing_weights,
)
from semflow_nerfstudio.data.pretrained_encoders import (
    FrozenEncoder,
    at_frames,
    default_weights,
    load_encoder,
    resample,
)
from semflow_nerfstudio.data.vision_transformer import VisionTransformer
from semflow_nerfstudio.flow.feature_basis import FeatureBasis

NAMES = ("resnet18", "resnet50", "r3d_18", "dinov2")
WIDTHS = {"resnet18": 64 + 128 + 256, "resnet50": 256 + 512 + 1024, "r3d_18": 64 + 128 + 256, "dinov2": 128}
STRIDES = {"resnet18": 4, "resnet50": 4, "r3d_18": 4, "dinov2": 7}
FRAMES, HEIGHT, WIDTH = 6, 28, 50


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights in files, as the published checkpoints name them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    networks: dict[str, nn.Module] = {
        "resnet18": models.resnet18(weights=None),
        "resnet50": models.resnet50(weights=None),
        "r3d_18": models.video.r3d_18(weights=None),
        "dinov2": VisionTransformer(128, 2, 14, 1 + 5 * 5),
    }
    for name, network in networks.items():
        state = network.state_dict()
        if name == "dinov2":
            state["mask_token"] = torch.zeros(1, 128)  # published checkpoints have one
            for key in ("cls_token", "pos_embed"):
                state[key] = 0.1 * torch.randn_like(state[key])
        torch.save(state, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in networks}


@pytest.fixture(scope="module")
def images() -> Tensor:
    """A smooth clip."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(FRAMES, 3, 5, 9, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")
    return (255 * fine).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def one_camera(images: Tensor) -> Clip:
    return Clip(images, [torch.arange(len(images))])


def features_of(images: Tensor, config: FrameFeaturesConfig) -> Tensor:
    """Features of one scene alone."""
    found = frame_features([one_camera(images)], config)
    assert found is not None
    return found.maps[0]


def pixels(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_stated_stride_and_width(name: str, weights: dict[str, Path], images: Tensor) -> None:
    encoder = load_encoder(name, weights[name])
    maps = encoder(pixels(images))
    stride = STRIDES[name]
    assert (encoder.width, encoder.stride, encoder.trainable) == (WIDTHS[name], stride, False)
    assert maps.shape == (FRAMES, WIDTHS[name], -(-HEIGHT // stride), -(-WIDTH // stride)) and maps.isfinite().all()
    assert maps.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_encoders_are_frozen(name: str, weights: dict[str, Path], images: Tensor) -> None:
    """No gradients, and BatchNorm in evaluation mode: frames do not depend on what else is in the batch."""
    encoder = load_encoder(name, weights[name]).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    maps = encoder(pixels(images))
    assert not maps.requires_grad and not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    if name != "r3d_18":
        torch.testing.assert_close(encoder(pixels(images[2:3])), maps[2:3], atol=1e-4, rtol=1e-4)


def test_video_features_see_the_neighbouring_frames(weights: dict[str, Path], images: Tensor) -> None:
    encoder = load_encoder("r3d_18", weights["r3d_18"])
    changed = images.clone()
    changed[3] = 255 - changed[3]
    difference = (encoder(pixels(images)) - encoder(pixels(changed))).abs().amax((1, 2, 3))
    assert difference[3] > 0 and difference[2] > 0


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_resampled_maps_lie_where_the_image_is(stride: int) -> None:
    """A strided map of the pixels' own coordinates gives the centres of the cells, away from the borders."""
    height, width, rows, columns = 64, 96, 16, 24
    x = torch.arange(0, width, stride) + 0.5
    y = torch.arange(0, height, stride) + 0.5
    maps = torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
    got = resample(maps, stride, height, width, rows, columns)[0]
    inside = (slice(None), slice(0, rows - stride // 2), slice(0, columns - stride // 2))
    cell = torch.stack(torch.meshgrid(torch.arange(columns) * 4 + 2.0, torch.arange(rows) * 4 + 2.0, indexing="xy"))
    torch.testing.assert_close(got[inside], cell[inside])


@pytest.mark.parametrize("name", ["resnet18", "dinov2"])
def test_what_moves_in_the_image_moves_alike_in_the_maps(name: str, weights: dict[str, Path]) -> None:
    """The centre of the response to a spot is the spot's place, be it where it may."""
    encoder = load_encoder(name, weights[name])
    height, width = 56, 112
    empty = torch.zeros(1, 3, height, width)
    background = encoder(empty)
    columns = background.shape[-1]
    centers = []
    for left in (28, 56):
        spotted = empty.clone()
        spotted[..., 21:35, left : left + 14] = 1
        response = (encoder(spotted) - background).norm(dim=1)[0]
        response = (response - response.median()).clamp(min=0) ** 2
        u = (torch.arange(columns) + 0.5) * width / columns
        centers.append(float((response.sum(0) * u).sum() / response.sum()))
    assert centers[1] - centers[0] == pytest.approx(28, abs=3)
    assert centers[0] == pytest.approx(35, abs=4)


def test_slow_maps_are_spread_over_the_frames() -> None:
    maps = torch.tensor([0.0, 4.0])[:, None, None, None]
    assert at_frames(maps, 4, 7).flatten().tolist() == [0, 1, 2, 3, 4, 4, 4]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_weights_are_named(name: str, weights: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"nothing of the kind")
    other = weights["dinov2" if name != "dinov2" else "resnet18"]
    for path in (broken, other):
        with pytest.raises(SceneDataError, match=f"{path.name} holds no weights of {name}"):
            load_encoder(name, path)


# ---------------------------------------------------------------- compression


def test_compression_keeps_what_varies_most() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 20, 30, 3, generator=generator) * torch.tensor([5.0, 2.0, 1.0])
    mixing = torch.linalg.qr(torch.randn(10, 10, generator=generator)).Q[:3]
    maps = hidden @ mixing + 7
    basis = FeatureBasis.fit(maps.reshape(-1, 10), 3)
    small = basis(maps).float()
    assert small.shape == (2, 20, 30, 3) and small.reshape(-1, 3).var(0).mean() == pytest.approx(1, rel=0.05)
    # distances are kept but for the scale: nothing that varies was lost
    flat, original = small.reshape(-1, 3), maps.reshape(-1, 10)
    ratio = (flat[:50] - flat[50:100]).norm(dim=-1) / (original[:50] - original[50:100]).norm(dim=-1)
    assert ratio.std() / ratio.mean() < 5e-3  # in half precision
    assert basis.key() == FeatureBasis.fit(maps.reshape(-1, 10), 3).key()
    one = FeatureBasis.fit(maps.reshape(-1, 10), 1)(maps).float()
    assert abs(float(torch.corrcoef(torch.stack([one.flatten(), hidden[..., 0].flatten()]))[0, 1])) > 0.99


# ---------------------------------------------------------------- computed once, kept on disk


@pytest.fixture
def config(weights: dict[str, Path], tmp_path: Path) -> FrameFeaturesConfig:
    return FrameFeaturesConfig("resnet18", weights["resnet18"], pca_dim=6, cache=tmp_path / "cache")


def count_computations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def load(name: str, path: Path) -> FrozenEncoder:
        calls.append(name)
        return load_encoder(name, path)

    monkeypatch.setattr(ff, "load_encoder", load)
    return calls


def test_features_are_computed_once(config, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_computations(monkeypatch)
    first, second = features_of(images, config), features_of(images, config)
    assert torch.equal(first, second) and len(calls) == 1
    assert first.dtype == torch.float16 and first.shape == (FRAMES, 7, 13, 6)
    assert {file.name.split("-")[0] for file in config.cache.iterdir()} == {"basis", "resnet18"}


def test_other_frames_or_arguments_are_computed_anew(
    config, weights: dict[str, Path], images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_computations(monkeypatch)
    first = features_of(images, config)
    changed = images.clone()
    changed[0, 0, 0, 0] ^= 255
    features_of(changed, config)
    features_of(images, FrameFeaturesConfig("resnet18", config.weights, 5, config.cache))
    state = torch.load(weights["resnet18"], weights_only=True)
    state["conv1.weight"] = state["conv1.weight"].flip(-1)
    torch.save(state, tmp_path / "other.pth")
    other = features_of(images, FrameFeaturesConfig("resnet18", tmp_path / "other.pth", 6, config.cache))
    assert len(calls) == 4 and not torch.equal(first, other)


@pytest.mark.parametrize("damage", ["cut", "foreign", "not finite"])
def test_broken_caches_are_computed_anew(config, images: Tensor, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = features_of(images, config)
    (file,) = config.cache.glob("resnet18-*")
    content = dict(np.load(file))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "foreign":
        np.savez(file, features=content["features"] * 0, arguments="{}")
    else:
        np.savez(file, features=content["features"] * np.float16(np.nan), arguments=content["arguments"])
    calls = count_computations(monkeypatch)
    again = features_of(images, config)
    assert len(calls) == 1 and torch.equal(first, again)


def test_a_cache_that_cannot_be_written_is_said(config, images: Tensor, capsys) -> None:
    config.cache.write_text("a file where the folder should be")
    assert features_of(images, config).isfinite().all()
    assert "not kept in" in capsys.readouterr().out


# ---------------------------------------------------------------- one compression for all scenes


def relative_difference(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


def test_scenes_share_the_compression(config, images: Tensor) -> None:
    """The same picture has the same features in every scene, and those of new scenes are made alike."""
    dark = images // 3
    mixed = torch.cat([dark[:3], images[3:]])
    found = frame_features([one_camera(images), one_camera(mixed)], config)
    assert found is not None
    assert torch.equal(found.maps[0][3:], found.maps[1][3:])
    alone, new = features_of(mixed, config), frame_features([one_camera(mixed)], config, known=found.basis)
    assert new is not None and torch.equal(new.maps[0], found.maps[1]) and new.basis.key() == found.basis.key()
    assert relative_difference(alone, new.maps[0]) > 0.05
    # every scene has an equal say, and axes are those of the whole: their variance is one over both
    flat = torch.cat([maps.float().flatten(0, 2) for maps in found.maps])
    assert flat.var(0).mean() == pytest.approx(1, rel=0.05) and flat.mean(0).abs().max() < 0.05


def test_a_compression_of_other_features_is_refused(config, weights: dict[str, Path], images: Tensor) -> None:
    found = frame_features([one_camera(images)], config)
    assert found is not None
    foreign = {
        "frame-features.encoder resnet18": FrameFeaturesConfig("r3d_18", weights["r3d_18"], 6, config.cache),
        "are not the weights whose features": FrameFeaturesConfig("resnet18", weights["resnet50"], 6, config.cache),
        "frame-features.pca-dim 6": FrameFeaturesConfig("resnet18", weights["resnet18"], 5, config.cache),
    }
    for message, other in foreign.items():
        with pytest.raises(SceneDataError, match=message):
            frame_features([one_camera(images)], other, known=found.basis)


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_encoded_a_few_at_a_time(name: str, weights: dict[str, Path], monkeypatch, tmp_path: Path) -> None:
    """The result is that of the whole clip; what is held at the encoder's width does not grow with it."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (40, 14, 28, 3), dtype=torch.uint8, generator=generator)
    encoder = load_encoder(name, weights[name])
    held: list[int] = []
    original = type(encoder).features

    def features(self, given, rows, columns):
        held.append(len(given))
        return original(self, given, rows, columns)

    monkeypatch.setattr(type(encoder), "features", features)
    found = frame_features([one_camera(images)], FrameFeaturesConfig(name, weights[name], 6, tmp_path))
    assert found is not None and max(held) <= (24 if name == "r3d_18" else 1)
    whole = found.basis(encoder(pixels(images)).permute(0, 2, 3, 1))
    assert relative_difference(found.maps[0], whole) < 2e-3


def test_videos_are_of_one_camera(weights: dict[str, Path], images: Tensor, tmp_path: Path) -> None:
    """Frames of a second camera between those of the first change nothing of what an encoder of videos sees."""
    settings = FrameFeaturesConfig("r3d_18", weights["r3d_18"], 6, tmp_path)
    alone = frame_features([one_camera(images)], settings)
    assert alone is not None
    both = torch.stack([images, 255 - images], dim=1).flatten(0, 1)  # by time, then camera
    clip = Clip(both, [torch.arange(0, 2 * FRAMES, 2), torch.arange(1, 2 * FRAMES, 2)])
    apart = frame_features([clip], settings, known=alone.basis)
    mixed = frame_features([one_camera(both)], settings, known=alone.basis)
    assert apart is not None and mixed is not None
    assert relative_difference(apart.maps[0][::2], alone.maps[0]) < 1e-3
    assert relative_difference(mixed.maps[0][::2], alone.maps[0]) > 0.02


def test_the_clips_of_a_scene() -> None:
    one = random_frames((0.0, 0.5, 1.0))
    assert [c.tolist() for c in Clip.of(one).cameras] == [[0, 1, 2]]
    several = random_frames((0.0, 0.0, 0.5, 0.5, 1.0))
    assert [c.tolist() for c in Clip.of(several).cameras] == [[0, 2, 4], [1, 3]]
    several.camera = torch.tensor([1, 0, 0, 1, 1])
    assert [c.tolist() for c in Clip.of(several).cameras] == [[1, 2], [0, 3, 4]]


# ---------------------------------------------------------------- without weights


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_the_small_encoder_is_used(name: str, images: Tensor, tmp_path: Path, capsys) -> None:
    missing = FrameFeaturesConfig(name, tmp_path / "none.pth")  # type: ignore[arg-type]
    assert frame_features([one_camera(images)], missing) is None
    said = capsys.readouterr().out
    assert "small trainable frame encoder" in said and "none.pth" in said and "nothing is downloaded" in said


def test_weights_are_looked_for_in_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for name in NAMES:
        path = default_weights(name)
        assert path.parent == tmp_path / "checkpoints" and path.suffix == ".pth"
        assert missing_weights(name) is not None
        path.parent.mkdir(exist_ok=True)
        path.touch()
        assert missing_weights(name) is None
    assert missing_weights("trainable") is None and frame_features([], FrameFeaturesConfig()) is None


@pytest.mark.parametrize("dim", [0, 1000])
def test_senseless_widths_are_refused(dim: int) -> None:
    with pytest.raises(ValueError, match="pca_dim"):
        FrameFeaturesConfig(pca_dim=dim)


@pytest.mark.parametrize("name", NAMES)
def test_loading_an_encoder_draws_no_random_numbers(name: str, weights: dict[str, Path]) -> None:
    """So a training is the same whether its features were cached or not."""
    before = torch.get_rng_state()
    load_encoder(name, weights[name])
    assert torch.equal(torch.get_rng_state(), before)
