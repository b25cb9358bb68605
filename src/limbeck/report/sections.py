"""A section of the page: a heading, figures, and what stands below them."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.report.plates import Plate


@dataclass(frozen=True)
class Section:
    """One heading of the page and what stands below it.

    name: unique on the page; letters, digits and hyphens (it is the anchor of the heading).
    title: the heading, plain text.
    plates: figures, drawn in this order. html: trusted HTML that is shown after the figures; whoever makes it escapes
    what comes from outside. lead: plain text between the heading and the figures.
    """

    name: str
    title: str
    plates: tuple[Plate, ...] = ()
    html: str = ""
    lead: str = ""
