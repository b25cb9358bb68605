"""A figure within the page: inline SVG whose colours and fonts are the page's own, in light, in dark and on paper."""

from __future__ import annotations

import html
import io
import re

from matplotlib.figure import Figure

from limbeck.report.plates import Palette, Plate, dashes, marker_place, save

COLOURS = 6
"""How many colours of the page are for what is compared: ``--s0`` and on in page.css."""
# Stand-ins that matplotlib writes into the SVG, and that become the page's own colours afterwards.
_INK, _GRID = "#010101", "#020202"
_STAND_INS = Palette(_INK, _GRID, tuple(f"#0300{number:02x}" for number in range(COLOURS)))
# limbeck.report.plates.MARKERS, as paths around (14, 4).
_SHAPES = (
    "M10.4 4a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "M10.8.8h6.4v6.4h-6.4z",
    "M14 .2l4 7.4h-8z",
    "M14-.2l4.2 4.2l-4.2 4.2l-4.2-4.2z",
    "M14 7.8l-4-7.4h8z",
    "M12.7.4h2.6v2.3h2.3v2.6h-2.3v2.3h-2.6v-2.3h-2.3v-2.6h2.3z",
)


def figure_html(plate: Plate, number: int) -> str:
    """The figure with its title, caption and legend. ``number``: of the figure on its page, for ids that are unique."""
    words = f"<strong>{html.escape(plate.title)}</strong>{html.escape(plate.caption)}"
    head = f"<figcaption>{words}</figcaption>{_legend(plate)}"
    drawn = _inline(plate.draw(_STAND_INS), plate.alternative, f"f{number}")
    if not plate.wide:
        return f"<figure>\n{head}\n{drawn}\n</figure>"
    # On a phone it keeps its size and scrolls by itself.
    label = html.escape(plate.title)
    scroll = f'<div class="plate" role="region" aria-label="{label}, scrolls sideways" tabindex="0">{drawn}</div>'
    return f'<figure class="wide">\n{head}\n{scroll}\n</figure>'


def _legend(plate: Plate) -> str:
    """A list that shows each line's colour and dashes, or each point's colour and marker, beside its name."""
    if not plate.legend:
        return ""
    items = []
    for label, number in plate.legend:
        colour = f"var(--s{number % COLOURS})"
        drawn = _shape(number, colour) if plate.marked else _stroke(number, colour)
        swatch = f'<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true">{drawn}</svg>'
        items.append(f"<li>{swatch}{html.escape(label)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _shape(number: int, colour: str) -> str:
    return f'<path d="{_SHAPES[marker_place(number)]}" style="fill:{colour}"></path>'


def _stroke(number: int, colour: str) -> str:
    parts = " ".join(f"{1.6 * part:g}" for part in dashes(number))
    dash = f' stroke-dasharray="{parts}"' if parts else ""
    return f'<line x1="1" x2="27" y1="4" y2="4" style="stroke:{colour}"{dash}></line>'


def _inline(figure: Figure, alternative: str, name: str) -> str:
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    save(figure, buffer, _STAND_INS, "svg", salt=name)
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    # The style element would hold for the whole page, and the metadata name addresses.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    # No title element: browsers show it over the figure wherever the mouse rests, and this is a long text.
    head = f'<svg role="img" aria-label="{html.escape(alternative)}" {box[0]} preserveAspectRatio="xMidYMid meet">'
    return head + _page_colours(_own_ids(body, name))


def _own_ids(body: str, name: str) -> str:
    """Ids that are used get the figure's name in front, since a page may hold each once; the others go."""
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    return re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', body)


def _page_colours(body: str) -> str:
    body = body.replace(_INK, "currentColor").replace(_GRID, "var(--grid)")
    body = re.sub(r"#0300([0-9a-f]{2})", lambda found: f"var(--s{int(found[1], 16)})", body)
    # Versions of matplotlib write the family by itself or after the size.
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", body)
    return re.sub(r'<text style="(?![^"]*fill:)', '<text style="fill: currentColor; ', body)
