"""Decodes every file of a split once, before training, so that a broken one is reported now and not in an hour."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from semflow_nerfstudio.data.checks import SceneDataError, check_aspect
from semflow_nerfstudio.data.files import load_image, read_image_size
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.data.modalities import (
    decode_depth,
    decode_disparity,
    decode_flow,
    decode_labels,
    decode_mask,
)
from semflow_nerfstudio.data.records import FrameRecord


def common_size(images: Sequence[Path]) -> tuple[int, int]:
    """(width, height) of all images, read from their headers.

    Raises:
        SceneDataError: naming an image that differs from the first.
    """
    first = read_image_size(images[0])
    for path in images[1:]:
        size = read_image_size(path)
        if size != first:
            raise SceneDataError(
                f"{path} is {size[0]}x{size[1]} but {images[0].name} is {first[0]}x{first[1]}: all images of a scene "
                "must have one size, so scale or crop them alike."
            )
    return first


def verify_frames(
    images: Sequence[Path], records: Sequence[FrameRecord], classes: ClassTable | None, done: set[Path]
) -> None:
    """Fully decode all files of the frames, in threads, and check that they show the images' aspect ratio.

    `done` holds files that need no second look; the new ones are added to it.

    Raises:
        SceneDataError: for the first bad file in the order of the frames.
    """

    def image_size(path: Path) -> tuple[int, int]:
        return load_image(path).size

    def size_of(decode: Callable) -> Callable[[Path], tuple[int, int]]:
        def size(path: Path) -> tuple[int, int]:
            decoded = decode(path)
            height, width = (decoded[0] if isinstance(decoded, tuple) else decoded).shape[:2]
            return width, height

        return size

    def labels(path: Path):
        if classes is None:
            raise SceneDataError(
                f"{path} is a label image but the scene has no class table: add labelmap.txt with one "
                "`name:red,green,blue::` line per class."
            )
        return decode_labels(path, classes)

    jobs: list[tuple[Path, Path, Callable[[Path], tuple[int, int]]]] = []
    for image, record in zip(images, records, strict=True):
        files = (
            (image, image_size),
            (record.labels, size_of(labels)),
            (record.flow_forward, size_of(decode_flow)),
            (record.flow_backward, size_of(decode_flow)),
            (record.motion_mask, size_of(decode_mask)),
            (record.disparity, size_of(decode_disparity)),
            (record.depth, size_of(decode_depth)),
            (record.mask, size_of(decode_mask)),
        )
        for path, job in files:
            if path is not None and path not in done:
                jobs.append((image, path, job))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sizes = pool.map(lambda job: job[2](job[1]), jobs)
        for (image, path, _), size in zip(jobs, sizes, strict=True):
            if path != image:
                check_aspect(path, size, read_image_size(image))
    done.update(path for _, path, _ in jobs)
