"""How to cite a release: BibTeX, RIS and plain text."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["FORMATS", "Citation"]

#: Ending of the address → media type.
FORMATS = {"bib": "application/x-bibtex", "ris": "application/x-research-info-systems", "txt": "text/plain"}

_SPECIAL = re.compile(r"([&%$#_{}])")


@dataclass(frozen=True)
class Citation:
    """What a citation of a release says.

    Parameters
    ----------
    dataset_id, version, title, created
        As in the manifest.
    publisher
        The node.
    url
        The release's page.
    authors
        Names; the publisher stands in where there are none.
    doi, cstr
        Identifiers, empty where there are none.
    """

    dataset_id: str
    version: int
    title: str
    created: str
    publisher: str
    url: str
    authors: tuple[str, ...] = ()
    doi: str = ""
    cstr: str = ""

    @property
    def year(self) -> str:
        """Year of the release."""
        return self.created[:4]

    @property
    def names(self) -> tuple[str, ...]:
        """Authors, or the publisher."""
        return self.authors or (self.publisher,)

    @property
    def link(self) -> str:
        """The address that lasts longest."""
        return f"https://doi.org/{self.doi}" if self.doi else self.url

    def to_text(self) -> str:
        """Return one line, in DataCite's recommended form."""
        kind = "[Data set]"
        parts = [
            "; ".join(self.names),
            f"({self.year}).",
            f"{self.title} (version {self.version})",
            f"{kind}.",
        ]
        tail = f"{self.publisher}. {self.link}" + (f" CSTR:{self.cstr}" if self.cstr else "")
        return " ".join([*parts, tail])

    def to_bibtex(self) -> str:
        """Return a BibTeX entry; braces keep names of several words and capitals together."""
        fields = {
            "title": f"{{{_tex(self.title)}}}",
            "author": " and ".join(f"{{{_tex(name)}}}" for name in self.names),
            "year": self.year,
            "publisher": _tex(self.publisher),
            "version": str(self.version),
            "url": self.link,
            "doi": self.doi,
            "note": f"urn:uuid:{self.dataset_id}" + (f", CSTR:{_tex(self.cstr)}" if self.cstr else ""),
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@dataset{{matcompute-{self.dataset_id[:8]}-v{self.version},", *lines, "}", ""])

    def to_ris(self) -> str:
        """Return a RIS record."""
        rows = [
            ("TY", "DATA"),
            *[("AU", _line(name)) for name in self.names],
            ("TI", _line(self.title)),
            ("PY", self.year),
            ("DA", self.created[:10].replace("-", "/")),
            ("PB", _line(self.publisher)),
            ("ET", str(self.version)),
            ("DO", self.doi),
            ("UR", self.link),
            ("AN", self.dataset_id),
            ("ER", ""),
        ]
        return "".join(f"{tag}  - {text}\r\n" for tag, text in rows if text or tag == "ER")

    def render(self, ending: str) -> str:
        """Return the citation in one of `FORMATS`."""
        return {"bib": self.to_bibtex, "ris": self.to_ris, "txt": lambda: self.to_text() + "\n"}[ending]()


def _tex(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", _line(text).replace("\\", r"\textbackslash "))


def _line(text: str) -> str:
    return " ".join(text.split())
