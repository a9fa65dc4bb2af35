"""Metadata formats of the OAI-PMH door: the release's DataCite document as ``oai_dc`` and as ``datacite``."""

from __future__ import annotations

import re
from typing import Any

from lxml.etree import Element, SubElement
from oaipmh.metadata import MetadataRegistry
from oaipmh.server import oai_dc_writer

__all__ = ["FORMATS", "clean", "dublin_core", "registry"]

DATACITE = "http://datacite.org/schema/kernel-4"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"

#: prefix → (schema, namespace)
FORMATS: dict[str, tuple[str, str]] = {
    "oai_dc": (
        "http://www.openarchives.org/OAI/2.0/oai_dc.xsd",
        "http://www.openarchives.org/OAI/2.0/oai_dc/",
    ),
    "datacite": (
        f"{DATACITE.replace('datacite.org/schema', 'schema.datacite.org/meta')}/metadata.xsd",
        DATACITE,
    ),
}
# Everything that XML 1.0 cannot hold.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: Any) -> str:
    """Return a text that XML can hold."""
    return _ILLEGAL.sub("\ufffd", str(text))


class Described:
    """A record's facts, in the shape that the writers of ``oaipmh`` want."""

    def __init__(self, document: dict[str, Any], extra: dict[str, Any]) -> None:
        self.document = document
        self.extra = extra

    def getMap(self) -> dict[str, list[str]]:
        """Return the Dublin Core elements."""
        return dublin_core(self.document, self.extra)


def dublin_core(document: dict[str, Any], extra: dict[str, Any]) -> dict[str, list[str]]:
    """Return the elements of simple Dublin Core."""
    found = {
        "title": [t.get("title") for t in document.get("titles", [])] or [extra["title"]],
        "creator": [c.get("name") for c in document.get("creators", [])],
        "subject": [s.get("subject") for s in document.get("subjects", [])] or [extra["domain"]],
        "description": [d.get("description") for d in document.get("descriptions", [])],
        "publisher": [_publisher(document)],
        "contributor": [c.get("name") for c in document.get("contributors", [])],
        "date": [d.get("date") for d in document.get("dates", [])],
        "type": [(document.get("types") or {}).get("resourceTypeGeneral", "Dataset")],
        "format": document.get("formats", []),
        "identifier": [
            extra["url"],
            *([f"https://doi.org/{document['doi']}"] if document.get("doi") else []),
            *[a.get("alternateIdentifier") for a in document.get("alternateIdentifiers", [])],
        ],
        "rights": [r.get("rightsUri") or r.get("rights") for r in document.get("rightsList", [])]
        or [extra["licence"]],
    }
    return {name: list(dict.fromkeys(clean(v) for v in values if v)) for name, values in found.items()}


def _publisher(document: dict[str, Any]) -> Any:
    publisher = document.get("publisher")
    return publisher.get("name") if isinstance(publisher, dict) else publisher


def _datacite(element: Any, metadata: Described) -> None:
    """Write DataCite XML, kernel 4."""
    d, extra = metadata.document, metadata.extra
    root = SubElement(element, f"{{{DATACITE}}}resource", nsmap={None: DATACITE, "xsi": _XSI})
    root.set(f"{{{_XSI}}}schemaLocation", f"{DATACITE} {FORMATS['datacite'][0]}")

    def add(parent: Any, name: str, text: Any = None, **attributes: Any) -> Any:
        child = SubElement(parent, f"{{{DATACITE}}}{name}")
        for key, value in attributes.items():
            if value:
                child.set(_LANG if key == "lang" else key, clean(value))
        if text is not None:
            child.text = clean(text)
        return child

    def group(name: str, items: list[Any]) -> Any:
        return SubElement(root, f"{{{DATACITE}}}{name}") if items else Element(name)

    doi = d.get("doi")
    add(root, "identifier", doi or extra["url"], identifierType="DOI" if doi else "URL")
    creators = d.get("creators") or [{"name": extra["publisher"], "nameType": "Organizational"}]
    parent = group("creators", creators)
    for creator in creators:
        person = add(parent, "creator")
        add(person, "creatorName", creator.get("name"), nameType=creator.get("nameType"))
        for one in creator.get("nameIdentifiers", []):
            add(
                person,
                "nameIdentifier",
                one.get("nameIdentifier"),
                nameIdentifierScheme=one.get("nameIdentifierScheme"),
                schemeURI=one.get("schemeUri"),
            )
        for place in creator.get("affiliation", []):
            add(person, "affiliation", place.get("name") if isinstance(place, dict) else place)
    titles = d.get("titles") or [{"title": extra["title"]}]
    parent = group("titles", titles)
    for title in titles:
        add(parent, "title", title.get("title"), lang=title.get("lang"))
    add(root, "publisher", _publisher(d) or extra["publisher"])
    add(root, "publicationYear", d.get("publicationYear") or extra["created"][:4])
    types = d.get("types") or {}
    add(
        root,
        "resourceType",
        types.get("resourceType", "Dataset"),
        resourceTypeGeneral=types.get("resourceTypeGeneral", "Dataset"),
    )
    parent = group("subjects", d.get("subjects", []))
    for subject in d.get("subjects", []):
        add(parent, "subject", subject.get("subject"))
    parent = group("dates", d.get("dates", []))
    for date in d.get("dates", []):
        add(parent, "date", date.get("date"), dateType=date.get("dateType"))
    others = d.get("alternateIdentifiers", [])
    parent = group("alternateIdentifiers", others)
    for other in others:
        kind = other.get("alternateIdentifierType", "other")
        add(parent, "alternateIdentifier", other.get("alternateIdentifier"), alternateIdentifierType=kind)
    for name, one in (("sizes", "size"), ("formats", "format")):
        parent = group(name, d.get(name, []))
        for text in d.get(name, []):
            add(parent, one, text)
    add(root, "version", d.get("version") or extra["version"])
    parent = group("rightsList", d.get("rightsList", []))
    for right in d.get("rightsList", []):
        add(
            parent,
            "rights",
            right.get("rights"),
            rightsURI=right.get("rightsUri"),
            rightsIdentifier=right.get("rightsIdentifier"),
            rightsIdentifierScheme=right.get("rightsIdentifierScheme"),
            schemeURI=right.get("schemeUri"),
        )
    parent = group("descriptions", d.get("descriptions", []))
    for text in d.get("descriptions", []):
        kind = text.get("descriptionType", "Abstract")
        add(parent, "description", text.get("description"), descriptionType=kind)


def registry() -> MetadataRegistry:
    """Return the writers of all formats."""
    found = MetadataRegistry()
    found.registerWriter("oai_dc", oai_dc_writer)
    found.registerWriter("datacite", _datacite)
    return found
