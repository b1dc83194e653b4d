"""Optical flow between neighbouring frames, both ways, with masks of where the two agree."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.modalities import decode_flow
from semflow_nerfstudio.process.steps import Progress, Step, each, file_stamp, workers
from semflow_nerfstudio.whole_file import whole_file

FLOWS = "flow"
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.01, 0.5
"""Flow there and back may miss by this share of its squared length plus this many squared pixels."""
RAFT_FILES = {"raft_small": "raft_small_C_T_V2-01064c6d.pth", "raft_large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth"}
RAFT_UPDATES = 12
RAFT_STRIDE = 8
RAFT_LEAST = 128
"""RAFT wants sides that are multiples of 8, and at least this long."""


class DIS:
    """OpenCV's dense inverse search: no weights, good to a third of a pixel where there is texture."""

    def __init__(self) -> None:
        self.stamp: dict[str, Any] = {"method": "dis"}
        self._own = threading.local()  # one object per thread: calc() writes into it

    def __call__(self, image: np.ndarray, other: np.ndarray) -> np.ndarray:
        if min(image.shape[:2]) < 32:
            raise SceneDataError(
                f"images of {image.shape[1]}x{image.shape[0]} are too small for optical flow: take larger ones "
                "(--size), of at least 32 pixels on the shorter side."
            )
        grey, other_grey = (cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) for pixels in (image, other))
        return self._object().calc(grey, other_grey, None)

    def _object(self) -> Any:
        if not hasattr(self._own, "dis"):
            self._own.dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            self._own.dis.setFinestScale(0)
        return self._own.dis


class RAFT:
    """torchvision's RAFT, on the accelerator where there is one. Nothing is downloaded."""

    def __init__(self, weights: Path, device: torch.device) -> None:
        """
        Args:
            weights: State dict of raft_large or raft_small.

        Raises:
            SceneDataError: if it is neither.
        """
        from torchvision.models.optical_flow import raft_large, raft_small

        self.stamp: dict[str, Any] = {"method": "raft", "weights": file_stamp(weights)}
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            large = any(key.startswith("mask_predictor") for key in state)  # raft_small upsamples without one
            network = (raft_large if large else raft_small)(weights=None, progress=False)
            network.load_state_dict(state)
        except Exception as error:  # a pickle can fail in any way
            detail = (str(error).splitlines() or [type(error).__name__])[0]
            raise SceneDataError(
                f"{weights} holds no weights of torchvision's raft_large or raft_small ({detail}): download them again."
            ) from None
        self.network = network.to(device).eval()
        self.device = device
        self._turn = threading.Lock()

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, other: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        sides = [max(RAFT_LEAST, -(-side // RAFT_STRIDE) * RAFT_STRIDE) for side in (height, width)]
        padding = (0, sides[1] - width, 0, sides[0] - height)
        pair = [torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None] for pixels in (image, other)]
        pair = [torch.nn.functional.pad(x.float() / 127.5 - 1, padding, mode="replicate") for x in pair]
        with self._turn:
            flow = self.network(*(x.to(self.device) for x in pair), num_flow_updates=RAFT_UPDATES)[-1]
        return flow[0, :, :height, :width].permute(1, 2, 0).float().cpu().numpy()


def flow_method(name: str) -> DIS | RAFT:
    """`dis`; `raft`, with weights from torch's cache; or RAFT with weights from a path.

    Raises:
        SceneDataError: no such weights.
    """
    if name == "dis":
        return DIS()
    device = torch.device(torch.accelerator.current_accelerator() or "cpu") if _accelerated() else torch.device("cpu")
    if name == "raft":
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        for file in ("raft_large", "raft_small"):
            if (cache / RAFT_FILES[file]).is_file():
                return RAFT(cache / RAFT_FILES[file], device)
        raise SceneDataError(
            f"{cache} holds no RAFT weights: put {RAFT_FILES['raft_large']} from download.pytorch.org/models there, "
            "give their path as --flow, or use --flow dis."
        )
    if not Path(name).is_file():
        raise SceneDataError(f"--flow is {name}: use dis, raft, or the path of RAFT weights.")
    return RAFT(Path(name), device)


def _accelerated() -> bool:
    return hasattr(torch, "accelerator") and torch.accelerator.is_available()


def consistent(flow: Float32[np.ndarray, "H W 2"], back: Float32[np.ndarray, "H W 2"]) -> Bool[np.ndarray, "H W"]:
    """Where flow leads into the other image and the other image's flow leads back; never where it is not finite."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    finite = np.isfinite(flow).all(-1)
    safe = np.where(finite[..., None], flow, 0)
    u, v = np.add(columns, safe[..., 0]), np.add(rows, safe[..., 1])
    inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    returned = cv2.remap(back, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    miss = ((safe + returned) ** 2).sum(-1)
    allowed = RELATIVE_TOLERANCE * ((safe**2).sum(-1) + (returned**2).sum(-1)) + ABSOLUTE_TOLERANCE
    return finite & inside & (miss <= allowed)  # NaN that came back compares false


def write_flow(path: Path, flow: Float32[np.ndarray, "H W 2"], mask: Bool[np.ndarray, "H W"]) -> None:
    """Save flow and mask as the parsers read them; half precision is finer than any flow."""
    with whole_file(path) as hidden:
        np.savez_compressed(hidden, flow=np.where(mask[..., None], flow, 0).astype(np.float16), mask=mask)


def flow_file(scene: Path, names: Sequence[str], frame: int, other: int) -> Path:
    """Where the flow from one frame to another is stored; `names` are those of the images."""
    return scene / FLOWS / f"{Path(names[frame]).stem}_to_{Path(names[other]).stem}.npz"


def make_flows(
    scene: Path,
    images: Sequence[Path],
    pairs: Sequence[tuple[int, int]],
    method: DIS | RAFT,
    after: Step,
    jobs: int | None,
    progress: Progress,
    name: str = "flow",
) -> Step:
    """The step that writes the flow of all `pairs` (a, b), from a to b and back.

    A second step of another `name` may add pairs: files that are there are not made again.
    """
    names = [image.name for image in images]
    content = {"flow": method.stamp, "pairs": pairs, "names": names}
    step = Step(scene, name, content, after=[after], folders=(FLOWS,) if name == "flow" else ())
    if step.result() is not None:
        return step
    step.begin()

    def work(pair: tuple[int, int]) -> None:
        files = [flow_file(scene, names, *ends) for ends in (pair, pair[::-1])]
        if all(step.has(file) for file in files):
            return
        pixels = [read_rgb(images[index]) for index in pair]
        there, back = method(*pixels), method(*pixels[::-1])
        for file, flow, other in ((files[0], there, back), (files[1], back, there)):
            write_flow(file, flow, consistent(flow, other))

    each(pairs, work, 1 if isinstance(method, RAFT) else workers(jobs), progress)
    files = [flow_file(scene, names, *ends) for pair in pairs for ends in (pair, pair[::-1])]
    step.finish({"pairs": len(pairs), **method.stamp}, files)
    return step


def read_rgb(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """A written frame."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


class Flows:
    """The flow between frames, read when asked for."""

    def __init__(self, scene: Path, names: Sequence[str]) -> None:
        self.scene, self.names = scene, names

    def has(self, frame: int, other: int) -> bool:
        """Whether that flow was made."""
        return self.path(frame, other).is_file()

    def path(self, frame: int, other: int) -> Path:
        """Its file."""
        return flow_file(self.scene, self.names, frame, other)

    def read(self, frame: int, other: int) -> tuple[Float32[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]:
        """Flow from one frame to another and where it holds."""
        return decode_flow(self.path(frame, other))
