"""Images that the teacher gets right and a student wrong."""

from __future__ import annotations

import html
from collections.abc import Mapping

from limbeck.evaluate.examples import Example
from limbeck.evaluate.record import Evaluation
from limbeck.report.evaluation._words import cast, percent
from limbeck.report.sections import Section

_MOST = 24
_SIDE = 104
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));gap:.9rem;list-style:none;padding:0"


def examples(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """A grid of images for each student."""
    found = {who: images for who, images in (evaluation.examples or {}).items() if images}
    if not found:
        return []
    shown = cast(evaluation, found, numbers)
    parts = [_grid(who, found[who]) for who in shown.students]
    lead = f"The class that is right, and what the student says instead and how sure it is.{shown.remark}"
    title = "Images the teacher gets right and a student wrong"
    return [Section(f"{prefix}-examples", title, html="\n".join(parts), lead=lead)]


def _grid(who: str, images: tuple[Example, ...]) -> str:
    shown = images[:_MOST]
    items = "\n".join(f"<li>{_figure(who, image)}</li>" for image in shown)
    head = f'<h3 style="font-size:1rem;margin:1rem 0 .4rem">{html.escape(who)}</h3>'
    return f'{head}\n<ul class="examples" style="{_GRID}">\n{items}\n</ul>'


def _figure(who: str, image: Example) -> str:
    scale = _SIDE / max(image.width, image.height)
    width, height = (max(1, round(scale * side)) for side in (image.width, image.height))
    # Small images are enlarged: their pixels are what the networks see.
    style = ' style="image-rendering: pixelated"' if scale > 1 else ""
    alternative = f"Image {image.index} of class {image.label}, taken for {image.student} by {who}"
    sure = f"{image.student} ({percent(image.student_confidence, 0)})"
    teacher = f"teacher: {image.teacher} ({percent(image.teacher_confidence, 0)})"
    return (
        f'<figure title="{html.escape(teacher)}">'
        f'<img alt="{html.escape(alternative)}" width="{width}" height="{height}"{style} '
        f'src="data:image/png;base64,{html.escape(image.png)}">'
        f"<figcaption><b>{html.escape(image.label)}</b>; student: {html.escape(sure)}</figcaption></figure>"
    )
