"""What the viewer renders in place of the pipeline's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from semflow_nerfstudio.viewer.compat import Interrupted

if TYPE_CHECKING:
    from semflow_nerfstudio.viewer.browser import Browser


class ViewedModel:
    """What the viewer renders in place of the model: with edits and display, and never failing because of them."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._failure = ""

    @property
    def device(self) -> torch.device:
        return self._browser.model.device

    @property
    def training(self) -> bool:
        return self._browser.model.training

    def eval(self) -> None:
        self._browser.model.eval()

    def train(self) -> None:
        self._browser.model.train()

    def get_outputs_for_camera(self, camera: Any, obb_box: Any = None) -> dict[str, Tensor]:
        """An image with edits and display; where they fail the plain one, and the page says why.

        The edits stay with the model afterwards: evaluation during training leaves them out itself.
        """
        browser = self._browser
        model = browser.model
        try:
            browser.apply()
            outputs = model.get_outputs_for_camera(camera, obb_box)
            self._tell("")
        except Interrupted:
            raise
        except Exception as error:
            self._tell(str(error) if isinstance(error, ValueError) else f"Shown without edits: {error}")
            with model.unedited():
                outputs = model.get_outputs_for_camera(camera, obb_box)
        browser.rendered(outputs)
        return outputs

    def _tell(self, failure: str) -> None:
        """Show a failure once, and take the message away when all is well again."""
        if failure != self._failure:
            self._failure = failure
            self._browser.tell(failure)
