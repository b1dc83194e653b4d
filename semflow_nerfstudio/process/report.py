"""One HTML page about a scene, without external resources: it can be mailed or opened from any disk."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from semflow_nerfstudio.data.checks import SceneDataError
from semflow_nerfstudio.data.labels import ClassTable
from semflow_nerfstudio.process.check import SceneContents, read_scene
from semflow_nerfstudio.process.pose_check import PoseCheck
from semflow_nerfstudio.process.summary import Summary
from semflow_nerfstudio.process.thumbnails import COLUMNS, Thumbnails, make_thumbnails
from semflow_nerfstudio.whole_file import whole_file

REPORT = "report.html"
LISTED = 60
"""Sentences of one kind that are listed at most."""
CHART_HEIGHT = 120
BAR, GAP = 8, 2

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c20; background: #fff; max-width: 64rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .25rem .75rem .25rem 0; vertical-align: top; }
.scroll { overflow-x: auto; } img { display: block; } .frames td { padding: .15rem .3rem .15rem 0; font-size: .8rem; }
.none { color: #8a8a92; } .bad { color: #b3261e; } .swatch { display: inline-block; width: 1em; height: 1em;
  border: 1px solid #8a8a92; vertical-align: -.15em; margin-right: .35em; } .entry { margin-right: 1.2em; }
svg { max-width: none; } svg text { font: 11px system-ui, sans-serif; fill: #55555c; }
"""


def write_report(scene: Path, summary: Summary, file: Path | None = None) -> Path:
    """Write the report.

    Args:
        scene: Folder of the scene, in either layout.
        summary: What `process_scene` or `check_scene` said.
        file: Where; None: report.html in the scene's folder.

    Returns:
        The file.
    """
    path = file or (scene if scene.is_dir() else scene.parent) / REPORT
    parts = [_head(summary), _sentences(summary), _missing(summary), _chart(summary)]
    try:
        found = read_scene(scene)
        parts += [_frames(found, make_thumbnails(found))]
    except SceneDataError as error:
        if str(error) not in summary.errors:
            parts.append(f'<p class="bad">No pictures can be shown: {escape(str(error))}</p>')
    parts.append(_list("Frames that were left out", summary.left_out))
    title = escape(Path(summary.scene).name)
    body = "\n".join(part for part in parts if part)
    with whole_file(path) as hidden:
        hidden.write_text(
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
            encoding="utf-8",
        )
    return path


def _head(summary: Summary) -> str:
    width, height = summary.size
    rows = {"frames": f"{summary.frames} of {width} x {height} pixels", "poses": summary.poses, **summary.details}
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>\n" for name, value in rows.items())
    return f"<h1>{escape(summary.scene)}</h1>\n<table>\n{cells}</table>"


def _sentences(summary: Summary) -> str:
    lines = [f'<p class="bad"><b>Error.</b> {escape(sentence)}</p>' for sentence in summary.errors[:LISTED]]
    lines += [f"<p><b>Warning.</b> {escape(sentence)}</p>" for sentence in summary.warnings[:LISTED]]
    return "\n".join(lines)


def _missing(summary: Summary) -> str:
    """What there is of everything, and what the absence of the rest costs."""
    costs = list(summary.missing.values())
    rows = []
    for name, (have, total) in summary.counts.items():
        cost = costs.pop(0) if have < total else ""
        known = f"{have} of {total}" if total > 1 else ("yes" if have else "no")
        rows.append(f"<tr><th>{escape(name)}</th><td>{known}</td><td>{escape(cost)}</td></tr>\n")
    if not rows:
        return ""
    return f'<h2>What there is</h2>\n<table class="there">\n{"".join(rows)}</table>'


def _chart(summary: Summary) -> str:
    """Bars of the epipolar error of every pair of frames, red where poses do not fit."""
    check, names = summary.pose_check, summary.pair_names
    if not check.errors:
        return ""
    return (
        "<h2>Do the poses fit the pictures?</h2>\n"
        f"<p>Static pixels lie {check.error:.2f} px from where the poses let them lie (epipolar error, median over "
        f"{len(check.errors)} pairs of frames). One bar for each pair; the dark part is the error of the best rigid "
        "motion that was found without poses; red ones do not fit.</p>\n"
        f'<div class="scroll">{_svg(check, [f"{a}, {b}" for a, b in names])}</div>'
    )


def _svg(check: PoseCheck, names: list[str]) -> str:
    top = max([1.0, *(error.error for error in check.errors)])
    left, width = 44, len(check.errors) * (BAR + GAP)
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = 8 + CHART_HEIGHT * (1 - share)
        lines.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d5d5da"/>')
        lines.append(f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{share * top:.2g} px</text>')
    for index, (error, name) in enumerate(zip(check.errors, names, strict=True)):
        x, color = left + index * (BAR + GAP), "#b3261e" if error.bad else "#4a7dc4"
        told = f"{name}: {error.error:.2f} px, best {error.best:.2f} px, flow {error.motion:.1f} px"
        bars = "".join(
            f'<rect x="{x}" y="{8 + CHART_HEIGHT * (1 - part):.1f}" width="{BAR}" height="{CHART_HEIGHT * part:.1f}" '
            f'fill="{fill}"/>'
            for part, fill in ((error.error / top, color), (min(error.best, error.error) / top, "#2b2b33"))
        )
        lines.append(f"<g><title>{escape(told)}</title>{bars}</g>")
    size = f'width="{left + width + 8}" height="{CHART_HEIGHT + 20}"'
    return f'<svg {size} role="img" aria-label="epipolar errors">\n' + "\n".join(lines) + "\n</svg>"


def _frames(found: SceneContents, thumbnails: Thumbnails) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *COLUMNS))
    rows = []
    for row in thumbnails.rows:
        cells = "".join(
            '<td class="none">none</td>' if uri is None else f'<td><img src="{uri}" alt="{name}"></td>'
            for uri, name in zip(row.pictures, COLUMNS, strict=True)
        )
        rows.append(f"<tr><td>{escape(row.name)}</td>{cells}</tr>\n")
    shown, count = len(thumbnails.rows), len(found.images)
    title = "Frames" if shown == count else f"{shown} of {count} frames"
    legend = "" if found.classes is None else f"<p>{_legend(found.classes, thumbnails.ignored)}</p>\n"
    wheel = ""
    if thumbnails.flow_wheel is not None:
        wheel = (
            f'<table><tr><td><img src="{thumbnails.flow_wheel}" alt="colours of flow"></td><td>Flow: the colour is the '
            f"direction in which a pixel goes, full at {thumbnails.flow_limit:.1f} px from frame to frame, white where "
            "it stays, black where it is unknown.</td></tr></table>\n"
        )
    table = f'<div class="scroll"><table class="frames">\n<tr>{head}</tr>\n{"".join(rows)}</table></div>'
    return f"<h2>{title}</h2>\n{legend}{wheel}{table}"


def _legend(classes: ClassTable, ignored: bool) -> str:
    entries: Iterable[str] = (
        f'<span class="entry"><span class="swatch" style="background:#{r:02x}{g:02x}{b:02x}"></span>'
        f"{escape(name)}</span>"
        for name, (r, g, b) in zip(classes.names, classes.colors.tolist(), strict=True)
    )
    note = '<span class="none">where nothing is painted, labels are ignored</span>' if ignored else ""
    return "Labels: " + "".join(entries) + note


def _list(title: str, sentences: list[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences[:LISTED])
    more = f"<p>and {len(sentences) - LISTED} more</p>" if len(sentences) > LISTED else ""
    return f"<h2>{title}</h2>\n<ul>\n{items}</ul>{more}"
