"""What a report is made of: plain text, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Picture:
    """A picture with the words that stand in for it.

    Attributes:
        png: The image, PNG bytes.
        alt: What it shows, for those who cannot see it.
        caption: What to see in it.
        wide: Whether a small screen scrolls it, because its text would be too small when it is shrunk.
    """

    png: bytes
    alt: str
    caption: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Table:
    """Lines of text cells; the first line is the header, the first column names the line.

    Attributes:
        lines: Header and body, equally wide.
        caption: What the table shows.

    Raises:
        ValueError: The lines differ in width, or there are none.
    """

    lines: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        widths = {len(line) for line in self.lines}
        if len(widths) != 1:
            raise ValueError(
                f"A table needs lines of one width. Received: widths {sorted(widths)}. Pad the short ones."
            )


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        title: Heading.
        text: Paragraphs.
        tables: Tables, below the text.
        pictures: Pictures, below the tables.
        listing: Preformatted text, such as the rules of a tree; folded away until opened.
        listing_title: What the listing is.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    listing: str = ""
    listing_title: str = ""


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: Title of the page.
        lead: What was found, in one or two sentences.
        sections: The parts, in order.
        settings: How it was made: settings, seeds, versions, command; by name.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
