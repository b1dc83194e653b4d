"""Time fields, flows and rendering where nothing but torch and jaxtyping (on a GPU also triton) is installed.

    python -m semflow_nerfstudio.benchmarking.core                # CPU
    python -m semflow_nerfstudio.benchmarking.core --device cuda

A scene of random frames, with fields and networks of the sizes of `semantic-flow-lite`, and evenly spaced samples: what
the parts cost, not what they show. `python -m semflow_nerfstudio.benchmarking.encodings` times the encodings alone.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from semflow_nerfstudio.benchmarking.machine import describe
from semflow_nerfstudio.benchmarking.records import write_json
from semflow_nerfstudio.cameras import FrameCameras
from semflow_nerfstudio.encodings.backends import choose_backend
from semflow_nerfstudio.flow.trajectories import integrate
from semflow_nerfstudio.renderer import RenderConfig, render_rays
from semflow_nerfstudio.rendering.samples import Samples
from semflow_nerfstudio.scene import SEMANTIC_GRID, Scene, SceneConfig
from semflow_nerfstudio.scene_frames import SceneFrames
from semflow_nerfstudio.shared import SharedConfig, SharedNetworks

CLASSES = 8
NEAR, FAR = 1.6, 3.4


def random_frames(count: int, width: int, height: int, generator: torch.Generator) -> SceneFrames:
    """Frames of noise, from cameras on an arc that look at the origin."""
    angles = torch.linspace(-0.5, 0.5, count)
    sine, cosine, zero = angles.sin(), angles.cos(), torch.zeros(count)
    right, back = torch.stack((cosine, zero, -sine), -1), torch.stack((sine, zero, cosine), -1)
    up = torch.tensor([0.0, 1.0, 0.0]).expand(count, 3)
    following = torch.arange(1, count + 1)
    times = torch.linspace(0, 1, count)
    return SceneFrames(
        name="random",
        cameras=FrameCameras(
            torch.stack((right, up, back, 2.5 * back), dim=-1),
            torch.tensor([width, width, width / 2, height / 2], dtype=torch.float32).repeat(count, 1),
            width,
            height,
        ),
        images=torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator),
        times=times,
        distinct_times=times,
        next_frame=torch.where(following < count, following, -1),
        previous_frame=torch.arange(count) - 1,
        aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        bounded=True,
        near=NEAR,
        far=FAR,
        class_names=tuple(f"class {k}" for k in range(CLASSES)),
        class_colors=torch.rand(CLASSES, 3, generator=generator),
        foreground=torch.arange(CLASSES) >= CLASSES // 2,
        has=frozenset({"labels", "flow"}),
    )


def random_samples(frames: SceneFrames, rays: int, samples: int, generator: torch.Generator) -> Samples:
    """Samples along rays of random pixels of the frames, at their times."""
    which = torch.randint(0, len(frames.times), (rays,), generator=generator)
    poses = frames.cameras.camera_to_worlds[which]
    aspect = torch.tensor([1.0, frames.cameras.height / frames.cameras.width])
    local = torch.cat(((torch.rand(rays, 2, generator=generator) - 0.5) * aspect, -torch.ones(rays, 1)), dim=-1)
    directions = nn.functional.normalize((poses[:, :, :3] @ local[..., None])[..., 0], dim=-1)
    edges = torch.linspace(NEAR, FAR, samples + 1).expand(rays, -1)
    return Samples(poses[:, :, 3], directions, frames.times[which, None], edges[:, :-1], edges[:, 1:])


class Workbench:
    """A random scene and rays on a device, and its parts as functions that can be timed."""

    def __init__(self, device: torch.device, rays: int, samples: int, frames: int, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        made = random_frames(frames, *size, generator)
        self.device, self.config = device, RenderConfig()
        self.scene = Scene(made, SceneConfig(semantic_grid=SEMANTIC_GRID), CLASSES).to(device)
        self.shared = SharedNetworks(SharedConfig(), CLASSES).to(device)
        on_cpu = random_samples(made, rays, samples, generator)
        parts = (on_cpu.origins, on_cpu.directions, on_cpu.times, on_cpu.starts, on_cpu.ends)
        self.samples = Samples(*(part.to(device).contiguous() for part in parts))
        self.maps: Float[Tensor, "F h w C"] | None = None

    def static_field(self) -> Tensor:
        """The static field at all samples."""
        out = self.scene.static(self.samples)
        return out.density.sum() + out.rgb.sum()

    def dynamic_field(self) -> Tensor:
        """The dynamic field at all samples."""
        out = self.scene.dynamic(self.samples.positions, self.samples.times, self.samples.sample_directions)
        return out.density.sum() + out.rgb.sum() + out.blend.sum()

    def flow(self) -> Tensor:
        """All samples moved one frame along the flow."""
        points = self.samples.positions.reshape(-1, 3)
        times = self.samples.sample_times().reshape(-1, 1)
        gap, tau = torch.full_like(times, 1.0) * self.scene.timeline.tau, self.scene.timeline.tau
        return integrate(self.scene.velocity, points, times, gap, tau, 1, "midpoint").sum()

    def training_pass(self) -> Tensor:
        """Frame encoder, and colour and logits of all rays, in all of which movers are looked for."""
        maps = self.shared.encode(self.scene.bank)
        out = render_rays(self.scene, self.shared, self.samples, self.config, maps, training=True)
        assert out.logits is not None
        return out.rgb.sum() + out.logits.sum()

    def rendering(self) -> Tensor:
        """Colour and logits of all rays, outside training."""
        if self.maps is None:
            self.maps = self.shared.encode(self.scene.bank)
        out = render_rays(self.scene, self.shared, self.samples, self.config, self.maps)
        assert out.logits is not None
        return out.rgb.sum() + out.logits.sum()

    def milliseconds(self, part: Callable[[], Tensor], backward: bool, repeats: int) -> float:
        """Median time of a part; the first call, which compiles and allocates, does not count."""
        seconds = []
        for _ in range(repeats + 1):
            for module in (self.scene, self.shared):
                module.zero_grad(set_to_none=True)
            self._wait()
            start = time.perf_counter()
            with torch.set_grad_enabled(backward):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
                    total = part()
                if backward:
                    total.backward()
            self._wait()
            seconds.append(time.perf_counter() - start)
            if not math.isfinite(float(total.detach())):
                raise RuntimeError(f"{part.__name__} gives {float(total.detach())}")
        return 1e3 * statistics.median(seconds[1:])

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.cuda.synchronize(self.device)


def measure(
    device: torch.device, rays: int, samples: int, repeats: int, frames: int = 12, size: tuple[int, int] = (240, 135)
) -> dict[str, Any]:
    """Milliseconds of every part, and of a training pass and of rendering for each ray."""
    bench = Workbench(device, rays, samples, frames, size)
    grid = bench.scene.static_field.grid
    used = choose_backend(grid.backend, grid.layout, device, grid.table.dtype)
    rows = {}
    for part in (bench.static_field, bench.dynamic_field, bench.flow, bench.training_pass):
        rows[part.__name__] = {
            "forward_ms": round(bench.milliseconds(part, False, repeats), 3),
            "forward_backward_ms": round(bench.milliseconds(part, True, repeats), 3),
        }
    rows["rendering"] = {"forward_ms": round(bench.milliseconds(bench.rendering, False, repeats), 3)}
    options = {"rays": rays, "samples": samples, "frames": frames, "size": "x".join(map(str, size)), "repeats": repeats}
    return {
        "machine": describe(device),
        "options": options,
        "backend": used.__name__.rpartition(".")[2].removesuffix("_backend"),
        "rows": rows,
        "training_pass_ms_per_ray": round(rows["training_pass"]["forward_backward_ms"] / rays, 5),
        "render_ms_per_ray": round(rows["rendering"]["forward_ms"] / rays, 5),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rays", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    result = measure(torch.device(arguments.device), arguments.rays, arguments.samples, arguments.repeats)
    print(f"{result['machine'].get('gpu', result['machine']['cpu'])}, {result['backend']}, {arguments.rays} rays")
    for name, row in result["rows"].items():
        print(f"{name:16} {row['forward_ms']:10.2f} ms {row.get('forward_backward_ms', float('nan')):10.2f} ms")
    print(f"{result['training_pass_ms_per_ray']} ms a ray in training, {result['render_ms_per_ray']} in rendering")
    if arguments.output is not None:
        write_json(arguments.output, result)
        print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
