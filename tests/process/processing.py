"""Scenes made without a display of progress."""

from contextlib import contextmanager

from semflow_nerfstudio.process.frames import FrameOptions
from semflow_nerfstudio.process.pipeline import ProcessOptions, process_scene


@contextmanager
def silent(title):
    yield lambda done, total, note="": None


def make(source, scene, **options):
    """process_scene without showing progress; `count` and `size` go to the frame options."""
    frames = {key: options.pop(key) for key in list(options) if key in FrameOptions.__dataclass_fields__}
    return process_scene(source, scene, ProcessOptions(frames=FrameOptions(**frames), **options), silent)
