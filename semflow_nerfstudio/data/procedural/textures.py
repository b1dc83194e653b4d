"""Procedural textures: tileable images made from a random generator, and their filtered lookup.

Colours are designed as people see them (sRGB) and kept in linear light, which is what shading and filtering need.
"""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

Color = tuple[float, float, float]
GAMMA = 2.2


def _halved(image: Float[ndarray, "n n 3"]) -> Float[ndarray, "n//2 n//2 3"]:
    """Means of 2x2 blocks."""
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) * image.dtype.type(0.25)


class Texture:
    """A square tileable image in linear light, with all its halved versions."""

    def __init__(self, image: Float[ndarray, "n n 3"]):
        """`image`: sRGB colours in [0, 1], first row at v = 0; n is a power of two."""
        level = np.clip(image, 0, 1).astype(np.float32) ** GAMMA
        self.size = len(level)
        levels = [level]
        while len(level) > 1:
            level = _halved(level)
            levels.append(level)
        self.texels: Float[ndarray, "M 3"] = np.concatenate([level.reshape(-1, 3) for level in levels])


class Atlas:
    """Several textures in one array, looked up with bilinear filtering between two of their halved versions."""

    def __init__(self, textures: list[Texture]):
        self._texels = np.concatenate([texture.texels for texture in textures])
        self._sizes = np.array([texture.size for texture in textures])
        starts = np.cumsum([0] + [len(texture.texels) for texture in textures[:-1]])
        levels = np.arange(int(np.log2(self._sizes.max())) + 1)
        squares = np.maximum(self._sizes[:, None] >> levels, 0) ** 2
        self._offsets = starts[:, None] + np.cumsum(squares, axis=1) - squares

    def _bilinear(self, which: ndarray, uv: ndarray, level: ndarray) -> ndarray:
        n = self._sizes[which] >> level
        start = self._offsets[which, level]
        x, y = uv[:, 0] * n - 0.5, uv[:, 1] * n - 0.5
        left, bottom = np.floor(x), np.floor(y)
        a, b = (x - left).astype(np.float32)[:, None], (y - bottom).astype(np.float32)[:, None]
        last = n - 1
        x0, y0 = left.astype(np.int64), bottom.astype(np.int64)
        row0, row1 = start + (y0 & last) * n, start + ((y0 + 1) & last) * n
        x0, x1 = x0 & last, (x0 + 1) & last
        lower = self._texels[row0 + x0] * (1 - a) + self._texels[row0 + x1] * a
        upper = self._texels[row1 + x0] * (1 - a) + self._texels[row1 + x1] * a
        return lower * (1 - b) + upper * b

    def lookup(
        self, which: Int[ndarray, "N"], uv: Float[ndarray, "N 2"], footprint: Float[ndarray, "N"]
    ) -> Float[ndarray, "N 3"]:
        """Linear colours of texture `which` at tile coordinates, averaged over squares of side `footprint` tiles."""
        size = self._sizes[which]
        exact = np.clip(np.log2(np.maximum(footprint * size, 1.0)), 0, np.log2(size))
        level = np.minimum(exact.astype(np.int64), np.log2(size).astype(np.int64) - 1)
        blend = (exact - level).astype(np.float32)[:, None]
        return self._bilinear(which, uv, level) * (1 - blend) + self._bilinear(which, uv, level + 1) * blend


def hsv(hue: float, saturation: float, value: float) -> ndarray:
    """sRGB colour of a hue (in turns), saturation and value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def noise(rng: np.random.Generator, n: int, low: float, high: float, slope: float = 1.0) -> Float[ndarray, "n n"]:
    """Tileable noise of `low` to `high` cycles per tile, amplitude falling as frequency**-slope, unit deviation."""
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None]) * n
    band = (frequency >= low) & (frequency <= high)
    amplitude = np.where(band, np.maximum(frequency, 1.0) ** (-slope - 1), 0.0)
    image = np.fft.irfft2(amplitude * np.fft.rfft2(rng.standard_normal((n, n))), s=(n, n))
    return image / image.std()


def _grid(n: int) -> tuple[ndarray, ndarray]:
    """Tile coordinates (u, v) in [0, 1) of texel centres, each n x n."""
    axis = (np.arange(n) + 0.5) / n
    v, u = np.meshgrid(axis, axis, indexing="ij")
    return u, v


def _edge(distance: ndarray, width: float) -> ndarray:
    """Smooth step from 0 at distance 0 to 1 at `width`."""
    x = np.clip(distance / width, 0, 1)
    return x * x * (3 - 2 * x)


def masonry(
    rng: np.random.Generator,
    color: ndarray,
    columns: int,
    rows: int,
    spread: float = 0.1,
    joint: float = 0.1,
    n: int = 512,
) -> Texture:
    """Bricks or stone blocks in running bond, each of its own tint, with lit upper edges and sunken joints."""
    u, v = _grid(n)
    row = np.floor(v * rows).astype(int)
    shifted = u * columns + 0.5 * (row % 2)
    column = np.floor(shifted).astype(int) % columns
    across, up = shifted % 1.0, (v * rows) % 1.0
    aspect = rows / columns
    border = np.minimum(np.minimum(across, 1 - across) * aspect, np.minimum(up, 1 - up))
    tint = 1 + spread * rng.standard_normal((rows, columns, 1)) + 0.4 * spread * rng.standard_normal((rows, columns, 3))
    grain = 1 + 0.06 * noise(rng, n, 8, 200, 0.3) + 0.06 * noise(rng, n, 2, 12)
    bevel = 1 + 0.12 * (1 - _edge(1 - up - joint, 0.12)) - 0.18 * (1 - _edge(up - joint, 0.12))
    block = color * tint[row, column] * (grain * bevel)[..., None]
    mortar = np.array([0.74, 0.71, 0.66]) * (grain * 0.95)[..., None]
    solid = _edge(border - joint * 0.6, joint * 0.6)[..., None]
    return Texture(block * solid + mortar * (1 - solid))


def flagstones(rng: np.random.Generator, color: ndarray, count: int = 4, n: int = 512) -> Texture:
    """Square slabs in two alternating tints with worn surfaces and dark joints."""
    u, v = _grid(n)
    i, j = np.floor(v * count).astype(int), np.floor(u * count).astype(int)
    across, up = (u * count) % 1.0, (v * count) % 1.0
    border = np.minimum(np.minimum(across, 1 - across), np.minimum(up, 1 - up))
    tint = (
        1
        + 0.05 * rng.standard_normal((count, count, 3))
        + 0.09 * (-1.0) ** np.add.outer(*[np.arange(count)] * 2)[..., None]
    )
    wear = 1 + 0.07 * noise(rng, n, 2, 24) + 0.07 * noise(rng, n, 24, 110, 0.2)
    stone = color * tint[i, j] * wear[..., None]
    solid = (0.55 + 0.45 * _edge(border - 0.012, 0.035))[..., None]
    return Texture(stone * solid)


def crate(rng: np.random.Generator, color: ndarray, n: int = 256) -> Texture:
    """One face of a wooden crate: planks inside a frame with a diagonal brace."""
    u, v = _grid(n)
    planks = 6
    plank = np.floor(u * planks).astype(int)
    seam = np.abs(u * planks - np.round(u * planks)) / planks
    streaks = noise(rng, n, 2, 100, 0.4)
    streaks = np.repeat(streaks[: n // 16], 16, axis=0)
    streaks = (streaks + np.roll(streaks, 8, axis=0)) / 2
    shade = (1 + 0.12 * rng.standard_normal(planks))[plank] * (1 + 0.13 * streaks)
    shade *= 0.5 + 0.5 * _edge(seam - 0.004, 0.012)
    frame_width = 0.12
    border = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    brace = np.abs(u - v) / np.sqrt(2)
    over = np.maximum(border < frame_width, brace < 0.065)
    rim = np.minimum(np.abs(border - frame_width), np.where(border > frame_width, np.abs(brace - 0.065), 1.0))
    beam = (1.22 + 0.10 * streaks.T) * (0.8 + 0.2 * _edge(border, 0.02))
    shade = np.where(over, beam, shade * 0.82) * (0.55 + 0.45 * _edge(rim, 0.014))
    return Texture(color * shade[..., None])


def marble(rng: np.random.Generator, color: ndarray, flutes: int = 10, n: int = 256) -> Texture:
    """A fluted column with joints between its drums."""
    u, v = _grid(n)
    flute = 0.83 + 0.17 * np.cos(2 * np.pi * flutes * u)
    joint = 0.62 + 0.38 * _edge(np.abs(v - 0.5) - 0.008, 0.02)
    veins = 1 - 0.22 * np.exp(-np.abs(noise(rng, n, 2, 24, 0.6)) * 6) + 0.05 * noise(rng, n, 8, 60, 0.3)
    return Texture(color * (flute * joint * veins)[..., None])


def leaves(rng: np.random.Generator, color: ndarray, n: int = 256) -> Texture:
    """Foliage: bright leaves over dark gaps."""
    blobs = noise(rng, n, 5, 40, 0.1)
    gap = _edge(blobs + 0.9, 1.2)[..., None]
    tint = np.stack([noise(rng, n, 3, 12) * 0.10, noise(rng, n, 3, 12) * 0.05, noise(rng, n, 3, 12) * 0.04], axis=-1)
    bright = color * (1 + 0.22 * np.tanh(noise(rng, n, 12, 60, 0.2)))[..., None] + tint * color
    return Texture(bright * (0.38 + 0.62 * gap))


def checks(rng: np.random.Generator, colors: list[ndarray], columns: int, rows: int, n: int = 256) -> Texture:
    """Chequered squares in turn of the given colours, with a little grain."""
    u, v = _grid(2 * n)
    index = (np.floor(u * columns) + np.floor(v * rows)).astype(int) % len(colors)
    image = _halved(np.stack(colors)[index])
    return Texture(image * (1 + 0.05 * noise(rng, n, 6, 60, 0.3))[..., None])


def gores(rng: np.random.Generator, colors: list[ndarray], count: int, n: int = 256) -> Texture:
    """A balloon's upright stripes in turn of the given colours, with a zigzag band around the middle."""
    u, v = _grid(2 * n)
    stripe = np.stack(colors)[np.floor(u * count).astype(int) % len(colors)]
    zigzag = np.abs((u * count * 2) % 2 - 1) * 0.10
    band = np.abs(v - 0.47 - zigzag + 0.05) < 0.055
    image = _halved(np.where(band[..., None], np.array([0.97, 0.95, 0.88]), stripe))
    return Texture(image * (1 + 0.03 * noise(rng, n, 6, 60, 0.3))[..., None])


def plaid(rng: np.random.Generator, color: ndarray, second: ndarray, count: int = 4, n: int = 256) -> Texture:
    """A shirt's woven checks."""
    u, v = _grid(n)
    warp = 0.5 + 0.5 * np.tanh(6 * np.sin(2 * np.pi * count * u))
    weft = 0.5 + 0.5 * np.tanh(6 * np.sin(2 * np.pi * count * v))
    mix = (0.5 * (warp + weft))[..., None]
    return Texture((color * (1 - mix) + second * mix) * (1 + 0.05 * noise(rng, n, 10, 80, 0.2))[..., None])


def cloth(rng: np.random.Generator, color: ndarray, contrast: float = 0.12, n: int = 128) -> Texture:
    """One colour with folds and grain: trousers, skin, hair, clay."""
    folds = noise(rng, n, 2, 10) + 0.7 * noise(rng, n, 10, 50, 0.2)
    return Texture(color * (1 + contrast * folds)[..., None])
