"""Metric inverse depth of a video's frames from relative disparity, optical flow and known poses.

A network's disparity is inverse depth up to a scale, a shift and a smooth error, anew in every frame. Here
    log(1 / z) = log(scale * disparity + shift) + correction(u, v)
with one scale, one shift and one coarse grid of corrections a frame, fitted to
  * static pixels, whose depth the flow gives by triangulation with the poses, and
  * moving pixels: along the flow they should not accelerate along the line of sight. Their depth is known only from the
    correction of the static pixels around them, differently wrong in every frame; this averages it over time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped, UInt8
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.sparse import block_diag, coo_matrix, csr_matrix, diags, identity, kron, vstack
from scipy.sparse.linalg import LinearOperator, cg

from semflow_nerfstudio.cameras import PIXEL_CENTER, FrameCameras
from semflow_nerfstudio.data.triangulation import Match, camera_origin, camera_rays, triangulate

REFERENCE_WIDTH = 480
"""Image width in which the pixel figures below are meant."""
FLOW_SD = 0.5
"""Standard deviation of the flow, in pixels."""
MAX_ERROR = 1.5
"""Static pixels reproject within this many pixels."""
MAX_RELATIVE_SD = 0.2
"""Static points need enough parallax for inverse depth to be this certain."""
MIN_POINTS = 100
"""Frames with fewer static points take scale and shift from their neighbours in time."""
AFFINE_SD = 0.03
"""Relative error of disparity beyond scale and shift, for weighing points by distance."""
STATIC_SD = 0.01
"""Relative error of triangulated inverse depth, beyond that of the flow."""
LEVEL_SD, STEP_SD = 0.25, 0.06
"""Prior of the correction: its size, and its change from one node of the grid to the next."""
ACCELERATION_SD = 0.005
"""How far from uniform movers move along the line of sight, as a share of their depth, from frame to frame."""
EFFECTIVE_POINTS = 1000
"""Neighbouring pixels share their errors: all points of a frame together count as at most this many."""
FLOOR_SHARE = 0.2
"""Smallest inverse depth, as a share of that of the most distant static points."""
GRID_WIDTH = 17
"""Nodes of the correction along the image's width."""
ROUNDS = 3
SAMPLES = 5_000
"""About so many pixels of a frame take part."""
EDGE_WINDOW, EDGE_RANGE = 7, 0.15
"""Disparity is sharpened in windows of this many pixels, where it varies by more than this share of its range."""


@dataclass
class FrameObservation:
    """What is known of one (H, W) frame; None where there is no file."""

    disparity: Float[np.ndarray, "H W"] | None
    """Relative inverse depth, NaN where unknown."""
    flow_forward: Float[np.ndarray, "H W 2"] | None = None
    flow_forward_mask: Bool[np.ndarray, "H W"] | None = None
    flow_backward: Float[np.ndarray, "H W 2"] | None = None
    flow_backward_mask: Bool[np.ndarray, "H W"] | None = None
    motion_mask: UInt8[np.ndarray, "H W"] | None = None
    """0 static, 1 moving, other values unknown."""


@dataclass
class DisparityAlignment:
    """How the disparity of N frames becomes inverse depth."""

    scale: Float[np.ndarray, "N"]
    """NaN where a frame could not be aligned."""
    shift: Float[np.ndarray, "N"]
    floor: float
    """Smallest inverse depth: scale and shift alone would put some distant pixels behind infinity."""
    correction: Float[np.ndarray, "N rows columns"]
    """Logarithms on a grid that spans the image from border to border."""
    inliers: Int[np.ndarray, "N"]
    """Static points that the frame was fitted to."""
    residual: Float[np.ndarray, "N"]
    """Median relative difference to them; NaN where there are none."""

    def inverse_depth(self, frame: int, disparity: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        """1 / camera z in scene units of a frame's (sharpened) disparity at any size; float32, NaN where unknown."""
        height, width = disparity.shape
        rows, columns = _hat_weights(height, self.correction.shape[1]), _hat_weights(width, self.correction.shape[2])
        base = np.maximum(self.scale[frame] * disparity + self.shift[frame], self.floor)
        return (base * np.exp(rows @ self.correction[frame] @ columns.T)).astype(np.float32)


def sharpen_edges(disparity: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Undo the blur of disparity across depth edges, whose pixels would float between foreground and background.

    Where a window sees a depth edge, a pixel takes the nearer one of the window's extremes. Meant for disparity at the
    size at which it was computed.
    """
    known = np.isfinite(disparity)
    if not known.any():
        return disparity
    low, high = np.percentile(disparity[known], (5, 95))
    window = 2 * round(EDGE_WINDOW * disparity.shape[1] / REFERENCE_WIDTH / 2 - 0.5) + 1
    largest = maximum_filter(np.where(known, disparity, -np.inf), max(window, 1))
    smallest = minimum_filter(np.where(known, disparity, np.inf), max(window, 1))
    nearer = np.where(largest - disparity < disparity - smallest, largest, smallest)
    return np.where(known & (largest - smallest > EDGE_RANGE * (high - low)), nearer, disparity)


@dataclass
class _Frame:
    """Samples of one frame while it is being aligned."""

    disparity: Float32[np.ndarray, "H W"]
    moving: Bool[np.ndarray, "H W"] | None
    pixels: Float[np.ndarray, "P 2"]
    matches: dict[int, Match]
    """By direction: +1 along the forward flow, -1 along the backward flow."""
    mover: Bool[np.ndarray, "P"]
    point_pixels: Float[np.ndarray, "Q 2"]
    """Static points."""
    inverse_depth: Float[np.ndarray, "Q"]
    relative_sd: Float[np.ndarray, "Q"]
    scale: float = np.nan
    shift: float = np.nan
    floor: float = np.nan

    def base(self, pixels: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P"]:
        """Inverse depth at (u, v) by scale and shift alone."""
        return np.maximum(self.scale * _look_up(self.disparity, pixels) + self.shift, self.floor)


def align_disparity(
    cameras: FrameCameras,
    times: Float[np.ndarray, "N"],
    next_frame: Int[np.ndarray, "N"],
    previous_frame: Int[np.ndarray, "N"],
    load: Callable[[int], FrameObservation],
) -> DisparityAlignment | None:
    """Align the disparity of N frames; None where no frame has enough static points with parallax.

    Args:
        cameras: poses and intrinsics at the size of the observations, in scene units.
        times: of the frames.
        next_frame: frame that the forward flow leads to, -1 for none.
        previous_frame: frame that the backward flow leads to, -1 for none.
        load: gives the observation of a frame, all at the cameras' size; called once a frame.
    """
    frames = [
        _prepare(cameras, k, load(k), {1: int(next_frame[k]), -1: int(previous_frame[k])}) for k in range(len(cameras))
    ]
    fits = np.array([_fit_scale_shift(frame) for frame in frames])
    if not np.isfinite(fits).any():
        return None
    fits = _fill_from_neighbours(fits, times, np.array([np.isfinite(frame.disparity).any() for frame in frames]))
    farthest = [np.percentile(frame.inverse_depth, 1) for frame in frames if len(frame.inverse_depth) >= MIN_POINTS]
    floor = FLOOR_SHARE * float(np.median(farthest))
    for frame, (scale, shift) in zip(frames, fits, strict=True):
        frame.scale, frame.shift, frame.floor = scale, shift, floor
    shape = (max(round((GRID_WIDTH - 1) * cameras.height / cameras.width), 1) + 1, GRID_WIDTH)
    correction, residual = _solve_corrections(cameras, times, frames, shape)
    return DisparityAlignment(
        scale=fits[:, 0],
        shift=fits[:, 1],
        floor=floor,
        correction=correction.reshape(-1, *shape),
        inliers=np.array([len(frame.inverse_depth) for frame in frames]),
        residual=residual,
    )


def _prepare(cameras: FrameCameras, index: int, seen: FrameObservation, neighbours: dict[int, int]) -> _Frame:
    """Sample pixels of a frame, follow the flow from them and triangulate the static ones."""
    height, width = cameras.height, cameras.width
    disparity = np.full((height, width), np.nan) if seen.disparity is None else seen.disparity
    stride = max(round((height * width / SAMPLES) ** 0.5), 1)
    rows, columns = (axis.ravel() for axis in np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride])
    known = np.isfinite(disparity[rows, columns])
    rows, columns = rows[known], columns[known]
    pixels = np.stack([columns, rows], axis=-1) + PIXEL_CENTER

    matches = {}
    flows = {1: (seen.flow_forward, seen.flow_forward_mask), -1: (seen.flow_backward, seen.flow_backward_mask)}
    for direction, (flow, mask) in flows.items():
        if neighbours[direction] >= 0 and flow is not None and mask is not None:
            end = pixels + flow[rows, columns]
            inside = (end >= 0).all(-1) & (end[:, 0] < width) & (end[:, 1] < height)
            matches[direction] = Match(neighbours[direction], end, mask[rows, columns] & inside)

    unit = width / REFERENCE_WIDTH
    points = triangulate(cameras, index, pixels, list(matches.values()))
    relative_sd = (
        FLOW_SD * unit / np.sqrt(np.maximum(points.information, 1e-30)) / np.maximum(points.inverse_depth, 1e-30)
    )
    consistent = points.ok & (points.error < max(MAX_ERROR * unit, FLOW_SD))
    motion = None if seen.motion_mask is None else seen.motion_mask[rows, columns]
    static = consistent & (relative_sd < MAX_RELATIVE_SD)
    if motion is None:
        mover = points.ok & ~consistent
    else:
        static &= motion != 1
        mover = (motion == 1) | ((motion != 0) & points.ok & ~consistent)
    return _Frame(
        disparity=disparity.astype(np.float32),
        moving=None if seen.motion_mask is None else seen.motion_mask != 0,
        pixels=pixels,
        matches=matches,
        mover=mover,
        point_pixels=pixels[static],
        inverse_depth=points.inverse_depth[static],
        relative_sd=relative_sd[static],
    )


def _fit_scale_shift(frame: _Frame) -> tuple[float, float]:
    """Scale and shift of disparity by weighted least absolute deviations; NaN where that is not possible."""
    target = frame.inverse_depth
    disparity = _look_up(frame.disparity, frame.point_pixels)
    if len(target) < MIN_POINTS or np.ptp(disparity) == 0:
        return np.nan, np.nan
    sd = target * np.hypot(frame.relative_sd, AFFINE_SD)
    design = np.stack([disparity, np.ones_like(disparity)], axis=-1) / sd[:, None]
    weight = np.ones_like(target)
    solution = np.zeros(2)
    for _ in range(25):
        root = np.sqrt(weight)
        solution = np.linalg.lstsq(design * root[:, None], target / sd * root, rcond=None)[0]
        residual = np.abs(design @ solution - target / sd)
        weight = 1 / np.maximum(residual, max(1.4826 * np.median(residual), 1e-9))
    scale, shift = solution
    return (float(scale), float(shift)) if scale > 0 else (np.nan, np.nan)


def _fill_from_neighbours(
    fits: Float[np.ndarray, "N 2"], times: Float[np.ndarray, "N"], has_disparity: Bool[np.ndarray, "N"]
) -> Float[np.ndarray, "N 2"]:
    """Give frames without a fit the median scale and shift of the four nearest in time that have one."""
    filled = fits.copy()
    fitted = np.flatnonzero(np.isfinite(fits[:, 0]))
    for k in np.flatnonzero(~np.isfinite(fits[:, 0]) & has_disparity):
        nearest = fitted[np.argsort(np.abs(times[fitted] - times[k]), kind="stable")[:4]]
        filled[k] = np.median(fits[nearest], axis=0)
    return filled


def _solve_corrections(
    cameras: FrameCameras, times: Float[np.ndarray, "N"], frames: Sequence[_Frame], shape: tuple[int, int]
) -> tuple[Float[np.ndarray, "N nodes"], Float[np.ndarray, "N"]]:
    """All frames' corrections by iteratively reweighted least squares, and the static points' median residuals."""
    nodes = shape[0] * shape[1]
    prior = _prior(shape)
    correction = np.zeros((len(frames), nodes))
    static = [_interpolation(frame.point_pixels, cameras, shape) for frame in frames]
    targets = [np.log(frame.inverse_depth / frame.base(frame.point_pixels)) for frame in frames]
    for iteration in range(ROUNDS):
        blocks: list[csr_matrix] = []
        right: list[np.ndarray] = []
        for k, frame in enumerate(frames):
            sd = np.hypot(frame.relative_sd, STATIC_SD)
            # the first round does not know the correction yet: everything within its prior is plausible
            residual = (targets[k] - static[k] @ correction[k]) / (sd if iteration else 0.05)
            weight = _share(len(sd)) / sd**2 / (1 + (residual / 2) ** 2)
            blocks.append(static[k].T @ diags(weight) @ static[k] + prior)
            right.append(static[k].T @ (weight * targets[k]))
        matrix, vector = block_diag(blocks, format="csc"), np.concatenate(right)
        if iteration:
            tolerance = 0.03 if iteration == 1 else ACCELERATION_SD
            parts = [_motion_rows(cameras, times, frames, k, correction, shape, tolerance) for k in range(len(frames))]
            rows = vstack([part[0] for part in parts], format="csr")
            deviation, weight = np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])
            matrix = matrix + rows.T @ diags(weight) @ rows
            vector = vector + rows.T @ (weight * (rows @ correction.ravel() - deviation))
        correction = _solve(csr_matrix(matrix), vector, correction)
    residual = [
        np.median(np.abs(np.expm1(static[k] @ correction[k] - targets[k]))) if len(targets[k]) else np.nan
        for k in range(len(frames))
    ]
    return correction, np.array(residual)


def _solve(
    matrix: csr_matrix, vector: Float[np.ndarray, "M"], start: Float[np.ndarray, "N nodes"]
) -> Float[np.ndarray, "N nodes"]:
    """Conjugate gradients, preconditioned by each frame's own block: neighbours are coupled by few movers only."""
    count, nodes = start.shape
    own = [slice(k * nodes, (k + 1) * nodes) for k in range(count)]
    inverses = np.stack([np.linalg.inv(matrix[block, block].toarray()) for block in own])

    def precondition(residual: np.ndarray) -> np.ndarray:
        return (inverses @ residual.reshape(count, nodes, 1)).ravel()

    operator = LinearOperator(matrix.shape, precondition, dtype=np.float64)  # type: ignore
    solution, _ = cg(matrix, vector, start.ravel(), maxiter=1000, M=operator)
    return solution.reshape(start.shape)


def _motion_rows(
    cameras: FrameCameras,
    times: Float[np.ndarray, "N"],
    frames: Sequence[_Frame],
    index: int,
    correction: Float[np.ndarray, "N nodes"],
    shape: tuple[int, int],
    tolerance: float,
) -> tuple[csr_matrix, Float[np.ndarray, "M"], Float[np.ndarray, "M"]]:
    """Linearised "movers of this frame keep their velocity along the line of sight".

    Returns:
        Derivative by all corrections, present deviation as a share of depth, and weight.
    """
    frame = frames[index]
    if len(frame.matches) < 2 or not frame.mover.any():
        return csr_matrix((0, correction.size)), np.zeros(0), np.zeros(0)
    after, before = frame.matches[1], frame.matches[-1]
    valid = frame.mover & after.valid & before.valid
    for match in (after, before):
        moving = frames[match.frame].moving
        if moving is not None:
            valid &= _look_up(moving, match.pixels)
        valid &= np.isfinite(frames[match.frame].base(match.pixels))
    if not valid.any():
        return csr_matrix((0, correction.size)), np.zeros(0), np.zeros(0)
    span = times[after.frame] - times[before.frame]
    share = (times[index] - times[before.frame]) / span if span > 0 else 0.5
    line_of_sight = camera_rays(cameras, index, frame.pixels[valid])
    line_of_sight /= np.linalg.norm(line_of_sight, axis=-1, keepdims=True)
    own_depth, deviation, entries = np.ones(1), np.zeros(int(valid.sum())), []
    for k, all_pixels, factor in (
        (index, frame.pixels, 1.0),
        (after.frame, after.pixels, -share),
        (before.frame, before.pixels, share - 1.0),
    ):
        pixels = all_pixels[valid]
        nodes = _interpolation(pixels, cameras, shape)
        depth = np.exp(-(nodes @ correction[k])) / frames[k].base(pixels)
        own_depth = depth if k == index else own_depth
        ray = camera_rays(cameras, k, pixels) * depth[:, None]
        deviation += factor * ((camera_origin(cameras, k) + ray) * line_of_sight).sum(-1) / own_depth
        block = coo_matrix(diags(-factor * (ray * line_of_sight).sum(-1) / own_depth) @ nodes)
        entries.append((block.data, block.row, block.col + k * correction.shape[1]))
    values, row, column = (np.concatenate(part) for part in zip(*entries, strict=True))
    rows = csr_matrix((values, (row, column)), shape=(len(deviation), correction.size))
    weight = _share(len(deviation)) / ACCELERATION_SD**2 / (1 + (deviation / (3 * tolerance)) ** 2)
    return rows, deviation, weight


def _share(count: int) -> float:
    return min(1.0, EFFECTIVE_POINTS / max(count, 1))


def _prior(shape: tuple[int, int]) -> csr_matrix:
    """Inverse covariance of one frame's correction: small, and changing little from node to node."""
    differences = [
        kron(identity(shape[0]), _difference(shape[1])),
        kron(_difference(shape[0]), identity(shape[1])),
    ]
    steps = vstack(differences, format="csr")
    return csr_matrix(identity(shape[0] * shape[1]) / LEVEL_SD**2 + steps.T @ steps / STEP_SD**2)


def _difference(count: int) -> csr_matrix:
    return csr_matrix(np.eye(count - 1, count, 1) - np.eye(count - 1, count))


def _hat_weights(pixels: int, nodes: int) -> Float[np.ndarray, "pixels nodes"]:
    """Linear interpolation along one image axis, from nodes spread from border to border to pixel centres."""
    position = (np.arange(pixels) + PIXEL_CENTER) / pixels * (nodes - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(nodes)), 0)


def _interpolation(pixels: Float[np.ndarray, "P 2"], cameras: FrameCameras, shape: tuple[int, int]) -> csr_matrix:
    """(P, rows * columns) bilinear interpolation from the grid of nodes at pixel coordinates (u, v)."""
    x = np.clip(pixels[:, 0] / cameras.width * (shape[1] - 1), 0, shape[1] - 1)
    y = np.clip(pixels[:, 1] / cameras.height * (shape[0] - 1), 0, shape[0] - 1)
    left, top = np.minimum(x.astype(int), shape[1] - 2), np.minimum(y.astype(int), shape[0] - 2)
    right, down = x - left, y - top
    corner = top * shape[1] + left
    weights = np.concatenate([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    columns = np.concatenate([corner, corner + 1, corner + shape[1], corner + shape[1] + 1])
    rows = np.tile(np.arange(len(pixels)), 4)
    return csr_matrix((weights, (rows, columns)), shape=(len(pixels), shape[0] * shape[1]))


def _look_up(image: Shaped[np.ndarray, "H W"], pixels: Float[np.ndarray, "P 2"]) -> Shaped[np.ndarray, "P"]:
    """Values of the pixels that contain (u, v); coordinates outside take the border."""
    column = np.clip(pixels[:, 0].astype(int), 0, image.shape[1] - 1)
    row = np.clip(pixels[:, 1].astype(int), 0, image.shape[0] - 1)
    return image[row, column]
