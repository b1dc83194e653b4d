"""The camera motion that most matches of two frames agree with, found without poses."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from semflow_nerfstudio.data.epipolar import Explanation, Matches, explain

MIN_MATCHES = 50
RANSAC_ERROR = 0.7
"""Pixels by which an inlier of a fit may be off."""
PLANE_SHARE = 0.98
"""If a homography explains this share of what a fundamental matrix explains, the latter is not determined."""


@dataclass(frozen=True)
class RigidMotion:
    """The camera motion that most matches of a pair of frames agree with, found without poses."""

    matrix: Float[np.ndarray, "3 3"]
    """Fundamental matrix or homography, on pixels."""
    plane: bool
    """Whether it is a homography: the camera hardly changed its place, or looks at something flat."""

    def explains(self, matches: Matches) -> Explanation:
        """Compare matches to this motion."""
        here, there = (
            np.pad(points, ((0, 0), (0, 1)), constant_values=1.0) for points in (matches.here, matches.there)
        )
        if not self.plane:
            return explain(self.matrix, here, there)
        moved = here @ self.matrix.T
        behind = np.abs(moved[:, 2]) < 1e-9
        step = moved[:, :2] / np.where(behind, 1.0, moved[:, 2])[:, None] - matches.there
        return Explanation(np.where(behind, np.inf, np.linalg.norm(step, axis=-1)), step, np.zeros_like(step))


def fit_rigid(matches: Matches) -> RigidMotion | None:
    """The rigid motion of most matches; None where there are too few of them.

    A fundamental matrix is not determined when the camera only turns, so a homography is taken where it explains as
    much.
    """
    if len(matches.here) < MIN_MATCHES:
        return None
    here, there = matches.here.astype(np.float32), matches.there.astype(np.float32)
    homography, flat = cv2.findHomography(here, there, cv2.USAC_MAGSAC, RANSAC_ERROR, maxIters=2000, confidence=0.999)
    fundamental, bent = cv2.findFundamentalMat(here, there, cv2.USAC_MAGSAC, RANSAC_ERROR, 0.999, 2000)
    flat_share = 0.0 if homography is None else float(np.mean(flat))
    if fundamental is None or fundamental.shape != (3, 3) or flat_share >= PLANE_SHARE * float(np.mean(bent)):
        return None if homography is None else RigidMotion(homography, plane=True)
    return RigidMotion(fundamental, plane=False)
