"""Loaders of flow, masks, disparity, depth and images at any size."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semflow_nerfstudio.data import files
from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.files import load_arrays
from semflow_nerfstudio.data.modalities import (
    decode_flow,
    downscaled_size,
    read_depth,
    read_disparity,
    read_flow,
    read_image,
    read_image_size,
    read_mask,
)
from semflow_nerfstudio.data.resize import resize_area, resize_area_where

SIZES = [(4, 3), (5, 5), (13, 7), (1, 1), (30, 20), (12, 5), (12, 9)]


def _area_by_hand(values, width, height):
    """Mean over the fine cells of each output pixel."""
    fine = np.repeat(np.repeat(values, height, axis=0), width, axis=1).astype(np.float64)
    blocks = fine.reshape(height, values.shape[0], width, values.shape[1], *values.shape[2:])
    return blocks.mean(axis=(1, 3))


@pytest.mark.parametrize("size", SIZES)
def test_area_against_counting(size):
    values = np.random.default_rng(1).normal(size=(9, 12, 2))
    np.testing.assert_allclose(resize_area(values, *size), _area_by_hand(values, *size), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_area_where_against_counting(size):
    rng = np.random.default_rng(2)
    values, valid = rng.normal(size=(9, 12)), rng.random((9, 12)) < 0.6
    means, kept = resize_area_where(np.where(valid, values, np.nan), valid, *size)
    coverage = _area_by_hand(valid, *size)
    assert np.array_equal(kept, coverage >= 0.5 - 1e-12)
    expected = _area_by_hand(np.where(valid, values, 0), *size) / np.maximum(coverage, 1e-12)
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "factor", "result"), [((480, 270), 4, (120, 67)), ((13, 7), 3, (4, 2)), ((3, 2), 5, (1, 1))]
)
def test_downscaled_size(size, factor, result):
    assert downscaled_size(*size, factor) == result


def test_flow_values_scale_per_axis_over_valid_pixels(tmp_path):
    flow = np.zeros((4, 6, 2), np.float32)
    flow[...] = [3.0, -2.0]
    flow[0, 0] = 1000.0
    mask = np.ones((4, 6), bool)
    mask[0, 0] = False
    mask[2:, 3:] = False
    np.savez(tmp_path / "flow.npz", flow=flow.astype(np.float16), mask=mask)
    small, valid = read_flow(tmp_path / "flow.npz", 2, 1)
    assert small.dtype == np.float32 and valid.tolist() == [[True, True]]
    np.testing.assert_allclose(small, [[[1.0, -0.5], [1.0, -0.5]]], rtol=1e-6)
    large, valid = read_flow(tmp_path / "flow.npz", 12, 4)
    assert not valid[0, :2].any() and valid[0, 2:].all()
    np.testing.assert_allclose(large[0, 2], [6.0, -2.0])
    assert (large[~valid] == 0).all()


def test_flow_formats_agree(tmp_path):
    flow = np.random.default_rng(3).normal(size=(5, 7, 2)).astype(np.float32)
    np.save(tmp_path / "f.npy", flow)
    np.savez(tmp_path / "f.npz", flow=flow)
    unknown = flow.copy()
    unknown[0, 0] = 1e10
    (tmp_path / "f.flo").write_bytes(struct.pack("<fii", 202021.25, 7, 5) + unknown.astype("<f4").tobytes())
    for name in ("f.npy", "f.npz", "f.flo"):
        result, valid = read_flow(tmp_path / name, 7, 5)
        assert valid[0, 0] == (name != "f.flo") and valid.sum() >= 34
        np.testing.assert_array_equal(result[valid], flow[valid])


def test_nan_flow_without_mask_is_unknown(tmp_path):
    flow = np.ones((2, 3, 2), np.float32)
    flow[0, 1] = np.nan
    np.save(tmp_path / "f.npy", flow)
    result, valid = decode_flow(tmp_path / "f.npy")
    assert valid.tolist() == [[True, False, True], [True] * 3] and np.isfinite(result).all()


@pytest.mark.parametrize("full", [1, 255])
def test_masks_by_half(tmp_path, full):
    mask = np.array([[1, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 1]], np.uint8) * full
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 3, 1).tolist() == [[1, 0, 1]]
    assert read_mask(tmp_path / "mask.png", 6, 2).tolist() == (mask // full).tolist()
    assert read_mask(tmp_path / "mask.png", 3, 1).dtype == np.uint8


def test_masks_of_a_palette_are_inside_wherever_an_object_is(tmp_path):
    mask = Image.fromarray(np.array([[0, 1, 2, 0]], np.uint8), mode="P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 4, 1).tolist() == [[0, 1, 1, 0]]


def test_disparity_by_area_or_nearest(tmp_path):
    disparity = np.array([[1.0, 3.0, np.nan, np.inf], [5.0, 7.0, np.nan, 2.0]], np.float32)
    np.save(tmp_path / "d.npy", disparity)
    area = read_disparity(tmp_path / "d.npy", 2, 1)
    assert area[0, 0] == 4.0 and np.isnan(area[0, 1]) and area.dtype == np.float32
    nearest = read_disparity(tmp_path / "d.npy", 2, 1, method="nearest")
    assert nearest.tolist() == [[7.0, 2.0]]


def test_depth_unit_and_holes(tmp_path):
    Image.fromarray(np.array([[1000, 0], [2500, 65535]], np.uint16)).save(tmp_path / "depth.png")
    depth = read_depth(tmp_path / "depth.png", 2, 2, unit=1e-3)
    np.testing.assert_allclose(depth, [[1.0, np.nan], [2.5, 65.535]], rtol=1e-6)
    np.savez(tmp_path / "depth.npz", depth=np.array([[1.0, -1.0]]))
    np.testing.assert_allclose(read_depth(tmp_path / "depth.npz", 2, 1), [[1.0, np.nan]])


def test_images_by_area(tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    assert np.array_equal(read_image(tmp_path / "i.png", 12, 9), pixels)
    assert np.array_equal(read_image(tmp_path / "i.png", 5, 4), np.rint(_area_by_hand(pixels, 5, 4)).astype(np.uint8))
    assert read_image_size(tmp_path / "i.png") == (12, 9)


def test_transparent_pixels_do_not_bleed(tmp_path):
    pixels = np.array([[[200, 100, 50, 255], [0, 0, 0, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    assert read_image(tmp_path / "i.png", 1, 1)[0, 0].tolist() == [200, 100, 50, 128]


def test_sixteen_bit_images_keep_their_brightness(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "i.png")
    assert read_image(tmp_path / "i.png", 3, 1)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"flow": np.zeros((4, 6))}, "shape"),
        ({"flow": np.zeros((2, 4, 6))}, "shape"),
        ({"flow": np.zeros((4, 6, 2)), "mask": np.ones((6, 4), bool)}, "mask of shape"),
        ({"flow": np.full((4, 6, 2), np.nan), "mask": np.ones((4, 6), bool)}, "NaN or infinite flow on 24 pixels"),
        ({"flow": np.full((4, 6, 2), np.nan)}, "no finite flow"),
        ({"uv": np.zeros((4, 6, 2))}, "no `flow`"),
        ({"flow": np.array([{}], object)}, "instead of numbers"),
    ],
)
def test_bad_flow(tmp_path, arrays, message):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(SceneDataError, match=rf"f\.npz.*{message}"):
        decode_flow(tmp_path / "f.npz")


@pytest.mark.parametrize("keep", [0, 10, 60, 300])
def test_truncated_arrays(tmp_path, keep):
    flow = np.random.default_rng(5).normal(size=(8, 9, 2))
    np.savez_compressed(tmp_path / "f.npz", flow=flow)
    np.save(tmp_path / "f.npy", flow)
    for name in ("f.npz", "f.npy"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
        with pytest.raises(SceneDataError, match=rf"{name} cannot be read as an array"):
            decode_flow(tmp_path / name)


def test_damaged_npz_is_noticed(tmp_path):
    np.savez_compressed(tmp_path / "f.npz", flow=np.random.default_rng(5).normal(size=(8, 9, 2)))
    data = bytearray((tmp_path / "f.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "f.npz").write_bytes(data)
    with pytest.raises(SceneDataError, match=r"f\.npz cannot be read"):
        decode_flow(tmp_path / "f.npz")


def test_truncated_flo(tmp_path):
    (tmp_path / "f.flo").write_bytes(struct.pack("<fii", 202021.25, 7, 5) + bytes(50))
    with pytest.raises(SceneDataError, match=r"f\.flo ends too early"):
        decode_flow(tmp_path / "f.flo")
    (tmp_path / "f.flo").write_bytes(b"PIEH" * 20)
    with pytest.raises(SceneDataError, match="bad header"):
        decode_flow(tmp_path / "f.flo")


def test_huge_files_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_PIXELS", 50)
    monkeypatch.setattr(files, "MAX_BYTES", 200)
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "i.png")
    with pytest.raises(SceneDataError, match=r"i\.png is 12x9: scale it down"):
        read_mask(tmp_path / "i.png", 3, 3)
    np.savez_compressed(tmp_path / "f.npz", flow=np.zeros((8, 9, 2)))
    with pytest.raises(SceneDataError, match=r"f\.npz holds 1,280 bytes"):
        decode_flow(tmp_path / "f.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_of_any_layout(tmp_path: Path, suffix: str) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for kind in (array, np.asfortranarray(array), array.astype(">f4"), array[:, ::2]):
        path = tmp_path / f"array{suffix}"
        if suffix == ".npy":
            np.save(path, kind)
        else:
            np.savez_compressed(path, a=kind)
        (read,) = load_arrays(path).values()
        assert np.array_equal(read, kind) and read.flags.writeable
