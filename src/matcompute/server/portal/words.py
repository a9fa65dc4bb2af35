"""The texts of the portal in each language: `Words`."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["LANGUAGES", "Words", "preferred"]

#: Language of the address → tag for ``lang`` and ``hreflang``.
LANGUAGES: dict[str, str] = {"zh": "zh-Hans", "en": "en"}

_QUALITY = re.compile(r"\s*([a-zA-Z*-]+)\s*(?:;\s*q=([0-9.]+))?\s*")


class Words:
    """The texts of one language.

    Parameters
    ----------
    language
        A key of `LANGUAGES`.

    Notes
    -----
    ``words("entries.count", n=3)`` gives the text with its places filled in. Terms of vocabularies are
    ``words.term("domain", "advanced-steel")``; a term that is not translated is shown as it is.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self.tag = LANGUAGES[language]
        self.texts = texts(language)

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text.

        Raises
        ------
        KeyError
            If the language lacks it.
        """
        text = self.texts[key]
        return text.format(**values) if values else text

    def term(self, vocabulary: str, value: str) -> str:
        """Return a word of a vocabulary."""
        return self.texts.get(f"{vocabulary}.{value}", value)

    def property(self, name: str, fallback: str = "") -> str:
        """Return what a column is called, the stage in front of it in brackets."""
        stage, _, base = name.rpartition("__")
        text = self.texts.get(f"property.{base}", "" if stage else fallback) or (fallback or base)
        return f"{text} ({stage})" if stage and f"({stage})" not in text else text

    def bilingual(self, text: dict[str, str] | str) -> str:
        """Return a text that a node gives in several languages, in this one or in any."""
        if isinstance(text, str):
            return text
        return text.get(self.language) or next((t for t in text.values() if t), "")


@cache
def texts(language: str) -> dict[str, str]:
    """Return all texts of a language by key."""
    path = files("matcompute.server.portal") / "words" / f"{language}.json"
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def preferred(accept: str) -> str:
    """Return the language that an ``Accept-Language`` header prefers; Chinese if it names none of ours."""
    best, language = 0.0, "zh"
    for part in accept[:1000].split(","):
        match = _QUALITY.fullmatch(part)
        if match is None:
            continue
        try:
            quality = float(match.group(2) or 1)
        except ValueError:
            continue
        primary = match.group(1).split("-")[0].lower()
        if primary in LANGUAGES and quality > best:
            best, language = quality, primary
    return language
