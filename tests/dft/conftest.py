"""Shared by the tests of first-principles stages: pseudopotential files that hold no physics, and structures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

UPF = """\
<UPF version="2.0.1">
  <PP_INFO>{info}</PP_INFO>
  <PP_HEADER element="{element}" pseudo_type="{kind}" is_ultrasoft="{us}" is_paw="{paw}" functional="PBE"
    z_valence="{z:.3e}" wfc_cutoff="{wfc:.6e}" rho_cutoff="{rho:.6e}"/>
</UPF>
"""


@pytest.fixture
def write_upf(tmp_path: Path) -> Callable[..., Path]:
    """Write a file that has the header of a pseudopotential."""

    def write(
        element: str,
        folder: str = "family",
        *,
        name: str | None = None,
        z: float = 4.0,
        wfc: float = 0.0,
        rho: float = 0.0,
        kind: str = "US",
        info: str = "",
    ) -> Path:
        path = tmp_path / folder / (name or f"{element}.pbe.UPF")
        path.parent.mkdir(exist_ok=True)
        us, paw = ("true" if kind == what else "false" for what in ("US", "PAW"))
        path.write_text(
            UPF.format(element=element, kind=kind, us=us, paw=paw, z=z, wfc=wfc, rho=rho, info=info)
        )
        return path.parent

    return write
