"""The node's pages for people, in Chinese and English: `mount`, and `cookies` for members' browsers."""

from __future__ import annotations

from matcompute.server.portal.assembly import cookies, mount

__all__ = ["cookies", "mount"]
