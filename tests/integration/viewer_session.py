"""nerfstudio's viewer on a run, as `ns-viewer` starts it, and a client that looks at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import viser.transforms as vtf
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.utils import writer
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer_legacy.server.viewer_utils import get_free_port
from tiny_runs import dataset_of, forget_writers, model_of
from torch import Tensor
from viewer_client import ViewerClient

from semflow_nerfstudio.runs import Run

WIDTH, HEIGHT = 64, 36
"""Of finished images; while a camera moves they are smaller."""


@dataclass
class Session:
    """A viewer and who looks at it."""

    run: Run
    viewer: Viewer
    client: ViewerClient
    rendered: list[dict[str, Tensor]]
    """Outputs of the images so far; `time` is that of the camera."""

    @property
    def alive(self) -> bool:
        """Whether the thread that renders for the client lives."""
        (thread,) = self.viewer.render_statemachines.values()
        return thread.is_alive()

    def settle(self, quiet: float = 0.4, patience: float = 180.0) -> np.ndarray:
        """Wait until the clients' images are finished, and nothing has happened for some seconds; the last image."""
        end, since = time.monotonic() + patience, time.monotonic()
        while time.monotonic() - since < quiet:
            assert time.monotonic() < end, "the images are never finished"
            self.client.receive(0.1)
            assert self.viewer.train_lock is not None
            machines = list(self.viewer.render_statemachines.values())
            if self.viewer.train_lock.locked() or any(m.state != "high" or m.next_action for m in machines):
                since = time.monotonic()
        return self.client.picture()

    def show(self, label: str, value: object) -> np.ndarray:
        """Change a control and wait for the image."""
        self.client.set(label, value)
        image = self.client.next_image(WIDTH)
        assert self.alive, f"the render thread died of {label} = {value}"
        return image


def end(threads: Iterable[RenderStateMachine]) -> None:
    """Wait for threads that render: one that the end of the process kills in the middle takes it down."""
    for thread in threads:
        thread.running = False
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def watched(run: Run, folder: Path) -> Iterator[Session]:
    """A viewer of a run, and a client that stands where the first training camera stands; `folder` is the run's."""
    rendered: list[dict[str, Tensor]] = []
    model = model_of(run)
    render = model.get_outputs_for_camera

    def watch(camera, obb_box=None):
        outputs = render(camera, obb_box)
        rendered.append({**outputs, "time": camera.times})
        return outputs

    model.get_outputs_for_camera = watch  # type: ignore[method-assign]
    port = get_free_port()
    viewer = Viewer(
        ViewerConfig(websocket_host="127.0.0.1", websocket_port=port, image_format="png"),
        log_filename=folder / "viewer.log",
        datapath=run.pipeline.datamanager.get_datapath(),
        pipeline=run.pipeline,
        train_lock=threading.Lock(),
    )
    run.config.logging.local_writer.enable = False
    writer.setup_local_writer(run.config.logging, max_iter=1)
    viewer.init_scene(dataset_of(run, "train"), "completed", dataset_of(run))
    viewer.update_scene(step=5)
    pose = run.frames.camera_to_worlds[0].numpy()
    turned = vtf.SO3.from_matrix(pose[:, :3]) @ vtf.SO3.from_x_radians(np.pi)
    with ViewerClient(port) as client:
        client.look((VISER_NERFSTUDIO_SCALE_RATIO * pose[:, 3]).tolist(), turned.wxyz.tolist())
        client.wait(lambda: client.image is not None, 180)
        client.set("Max res", WIDTH)
        client.next_image(WIDTH, 180)
        yield Session(run, viewer, client, rendered)
        threads = [*viewer.render_statemachines.values()]
    end(threads)
    viewer.viser_server.stop()
    forget_writers()
    del model.get_outputs_for_camera
