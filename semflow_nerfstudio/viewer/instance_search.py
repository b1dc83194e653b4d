"""Finds the instances of the viewer's scenes beside everything else that goes on: one search at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfstudio.utils.rich_utils import CONSOLE

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.editing.find_instances import find_instances, fingerprint_of, instances_file, with_flow
from semflow_nerfstudio.editing.instances import Instances
from semflow_nerfstudio.editing.targets import Objects

if TYPE_CHECKING:
    from semflow_nerfstudio.model import SemanticFlowModel


class InstanceSearch:
    """Reads instances from beside the run, or looks for them, in a thread of its own."""

    def __init__(
        self,
        model: Callable[[], SemanticFlowModel],
        folder: Path,
        lock: Callable[[], contextlib.AbstractContextManager[Any]],
        tell: Callable[[str], None],
        found: Callable[[str, Objects], None],
    ) -> None:
        """
        Args:
            model: Where to look.
            folder: The run's, where instances are kept.
            lock: Keeps training and rendering away from the model.
            tell: Shows how far it is, and why it failed; nothing: an empty text.
            found: Told a scene's name and its instances.
        """
        self._model, self._folder, self._lock = model, folder, lock
        self._tell, self._found = tell, found
        self.failures: dict[str, str] = {}
        """Why the last search of a scene failed: it is not repeated for every image."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self, name: str, search: bool = True) -> None:
        """Look for a scene's instances, unless a search is going on; without `search` only read those that are kept."""
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            self.failures.pop(name, None)
            self._thread = threading.Thread(target=self._run, args=(name, search), daemon=True)
            self._thread.start()

    def _run(self, name: str, search: bool) -> None:
        try:
            model = self._model()
            file = instances_file(model, self._folder, name)
            with self._lock():
                fingerprint = fingerprint_of(model, name)
            found = None
            with contextlib.suppress(SceneDataError):
                found = Instances.load(file)
            if found is None or found.fingerprint != fingerprint:
                if not search:
                    return
                found = self._search(model, name)
                if found.fingerprint == fingerprint:
                    found.save(file)  # else training has gone on meanwhile
            self._found(name, with_flow(found, model.scene(name)))
            self._tell("" if len(found) else "No instances were found: nothing is solid and confident enough.")
        except Exception as error:
            CONSOLE.print_exception()
            self.failures[name] = f"Instances could not be found: {error}"
            self._tell(self.failures[name])

    def _search(self, model: SemanticFlowModel, name: str) -> Instances:
        """Find instances with the model to itself, but for a pause after every view in which others have it."""
        with contextlib.ExitStack() as held:

            def take() -> None:
                held.enter_context(self._lock())
                held.enter_context(model.unedited())
                held.callback(model.train, model.training)
                model.eval()

            def progress(done: int, total: int) -> None:
                self._tell(f"Looking for instances: {done} of {total} views")
                held.close()
                time.sleep(0.02)
                take()

            take()
            return find_instances(model, name, progress=progress)
