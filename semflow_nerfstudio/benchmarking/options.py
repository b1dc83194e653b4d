"""What measurements can be told: plain values, so that the command line needs nothing heavy to show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpeedOptions:
    """What is timed."""

    rays: int = 1024
    """Rays of a training step."""
    samples: int = 64
    """Final samples of a ray (the reference's number), in training and in rendering."""
    steps: int = 150
    """Training steps, with the method's own number of samples, before rendering is timed: an untrained field has no
    surfaces to stop at."""
    repeats: int = 8
    """Timed training steps; an even number, as every other one updates the frame encoder."""
    dense_rays: int = 256
    """Rays of the plain, dense step, which costs many times as much a ray."""
    render_rays: int = 8192
    """Rays of a rendering."""
    error_rays: int = 1024
    """Rays on which semantics on some samples are compared with semantics on all."""
    points: int = 65536
    """Points of the encodings (on a GPU, sixteen times as many)."""
    configurations: tuple[str, ...] = ("8x15", "16x19")
    """Encodings: levels x log2 of the table's size."""
    size: str = "160x90"
    """Image size of the built-in scene."""
    frames: int = 12
    """Frames of it."""
    seed: int = 0
    """Seed of scene and training."""

    def check(self) -> None:
        """Raise ValueError where a value makes no sense."""
        numbers = ("rays", "samples", "steps", "repeats", "dense_rays", "render_rays", "error_rays", "points")
        for name in numbers:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class ScaleOptions:
    """What is measured."""

    frames: tuple[int, ...] = (12, 24, 48, 120)
    """Lengths of the clips."""
    size: str = "480x270"
    """Image size."""
    rays: int = 512
    """Rays of a training step."""
    steps: int = 24
    """Timed training steps; an even number, as every other one updates the frame encoder."""
    rounds: int = 3
    """How often each clip is trained on, in turn with the others: a machine that is slower for a while is so for all
    of them. The shortest time counts, and the most memory."""
    seed: int = 0
    """Seed of scene and training."""

    def check(self) -> None:
        """Raise ValueError where a value makes no sense."""
        if len(self.frames) < 2 or min(self.frames) < 2 or sorted(set(self.frames)) != list(self.frames):
            raise ValueError(f"--frames must be two or more growing numbers, each at least 2, not {self.frames}")
        if self.rays < 1 or self.steps < 2 or self.steps % 2 or self.rounds < 1:
            raise ValueError("--rays and --rounds must be at least 1 and --steps an even number of at least 2")
