"""Clips with known cameras: textured walls and a moving tile, drawn exactly; and writers of videos."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL = 192, 144, 170.0
FRAMES = 6
WALL, PANEL, TILE = -7.0, -4.0, -4.5
"""World z of what is in the clip; cameras stand near the origin and look along -z."""
TEXELS = 40
"""Texels per unit."""


def texture(seed: int, width: float, height: float) -> np.ndarray:
    """Colourful noise of several scales."""
    rng = np.random.default_rng(seed)
    shape = (int(height * TEXELS), int(width * TEXELS))
    total = np.zeros((*shape, 3), np.float32)
    for scale in (3, 6, 12, 30):
        small = rng.random((shape[0] // scale + 2, shape[1] // scale + 2, 3), np.float32)
        total += cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(total, (1, 99))
    return np.clip(255 * (total - low) / (high - low), 0, 255).astype(np.uint8)


def pose(k: int) -> np.ndarray:
    """3x4 camera-to-world, OpenGL axes: sideways, a little up, turning."""
    angle = 0.02 * np.sin(1.3 * k)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return np.concatenate([turn, [[0.12 * k - 0.3], [0.05 * k + 0.03 * np.sin(k)], [0.04 * k]]], axis=1)


def poses(count: int = FRAMES) -> np.ndarray:
    return np.stack([pose(k) for k in range(count)])


def paint(image: np.ndarray, camera: np.ndarray, tex: np.ndarray, corner: tuple[float, float], z: float) -> np.ndarray:
    """Draw a wall parallel to x and y whose upper left corner is given; returns where it is."""
    world_to_camera = np.diag([1.0, -1.0, -1.0]) @ camera[:, :3].T
    offset = -world_to_camera @ camera[:, 3]
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
    to_world = np.array([[1 / TEXELS, 0, corner[0]], [0, -1 / TEXELS, corner[1]], [0, 0, 1]])
    plane = np.stack([world_to_camera[:, 0], world_to_camera[:, 1], world_to_camera[:, 2] * z + offset], axis=1)
    homography = intrinsics @ plane @ to_world
    drawn = cv2.warpPerspective(tex, homography, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
    inside = cv2.warpPerspective(np.full(tex.shape[:2], 255, np.uint8), homography, (WIDTH, HEIGHT)) > 127
    image[inside] = drawn[inside]
    return inside


def draw(k: int, still: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Frame k (H, W, 3) and where the moving tile is."""
    camera = pose(0) if still else pose(k)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    paint(image, camera, texture(0, 24, 18), (-12, 9), WALL)
    paint(image, camera, texture(1, 2.2, 6), (-2.6, 1.0), PANEL)
    paint(image, camera, texture(3, 1.6, 3), (0.9, -0.6), PANEL)  # a second one, or no epipole could be found
    moving = paint(image, camera, texture(2, 1.3, 1.3), (0.5 + 0.02 * k, 1.1 - 0.14 * k), TILE)
    return image, moving


def write_folder(folder: Path, count: int = FRAMES, still: bool = False, name: str = "shot_{:02d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(draw(k, still)[0]).save(folder / name.format(k))
    return folder


def write_video(
    path: Path, pictures: Sequence[np.ndarray], times: Sequence[int] | None = None, codec: str = "libx264"
) -> Path:
    """A video whose time stamps are `times`, in thousandths of a second (by default 10 frames per second)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        stream.options = {"crf": "12"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = 100 * index if times is None else times[index]
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_video(path: Path) -> None:
    """Note in an mp4's track header that it is to be shown turned clockwise by 90 degrees, as phones do."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    assert data[start] == 0  # version 0: the matrix begins 40 bytes on
    matrix = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
    data[start + 40 : start + 76] = b"".join(int(value).to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)


def write_llff(
    path: Path, matrices: np.ndarray, width: int = WIDTH, height: int = HEIGHT, focal: float = FOCAL
) -> Path:
    """LLFF's poses_bounds.npy."""
    rows = []
    for right, up, backwards, position in np.moveaxis(matrices, 2, 1):
        hwf = np.array([height, width, focal])
        rows.append([*np.stack([-up, right, backwards, position, hwf], axis=1).ravel(), 1.0, 9.0])
    np.save(path, np.array(rows))
    return path


def write_transforms(path: Path, matrices: np.ndarray, names: Sequence[str], **keys) -> Path:
    """nerfstudio's transforms.json."""
    frames = [
        {"file_path": name, "transform_matrix": np.vstack([matrix, [0, 0, 0, 1]]).tolist()}
        for name, matrix in zip(names, matrices, strict=True)
    ]
    meta = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT, **keys}
    path.write_text(json.dumps({**meta, "frames": frames}))
    return path
