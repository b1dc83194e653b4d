"""`semflow label`: labels of any tool into a scene that exists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Label:
    """Import labels of an annotation tool into a `semflow-data` scene, on some frames or all, with one class table.

    Overlaps: what was drawn later lies on top. Pixels that nobody drew on are ignored. Labels that were
    imported before are replaced; `semflow process` keeps the labels when it is run again.
    """

    scene: tyro.conf.Positional[Path]
    """Folder with transforms.json."""
    labels: tyro.conf.Positional[Path]
    """Folder or file with CVAT's or Pascal VOC's colour masks, COCO JSON, DAVIS palette PNGs, LabelMe JSON, or id PNGs
    with a JSON table."""
    labels_format: str | None = None
    """masks, coco, davis, labelme or ids; by default told from the files."""
    background: str | None = None
    """Class of the pixels that nobody drew on; by default they are ignored."""
    foreground: tuple[str, ...] = ()
    """Classes that count as foreground in metrics and editing; by default those that the files call so."""

    def main(self) -> None:
        """Import, showing progress, and say what was found."""
        from semflow_nerfstudio.cli.report import progress
        from semflow_nerfstudio.process.labels.found import LabelSource
        from semflow_nerfstudio.process.labels.step import label_scene

        source = LabelSource(self.labels, self.labels_format, self.background, self.foreground)
        found = label_scene(self.scene, source, progress)
        names = ", ".join(entry["name"] for entry in found.classes)
        print(f"{self.scene}: labels on {len(found.files)} frames; classes: {names}")
        print("\n".join(f"  warning: {sentence}" for sentence in found.warnings), end="\n" if found.warnings else "")
