"""Settings of a node's server: ``node.yaml`` in the publication's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from matcompute.dataset import TIERS
from matcompute.delivery import EmailOptions
from matcompute.errors import InputError, did_you_mean
from matcompute.server.guard.alerts import AlertRules
from matcompute.server.guard.metering import Quota
from matcompute.yamlfile import LocatedYaml, format_key, load_yaml

__all__ = ["FILE", "Limits", "NodeSettings", "Text"]

FILE = "node.yaml"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(_Model):
    """A text in the two languages of the portal; one given as plain text holds for both."""

    zh: str = ""
    en: str = ""


class Limits(_Model):
    """Requests that one client may make in a minute."""

    anonymous_per_minute: Annotated[int, Field(ge=1)] = 600
    member_per_minute: Annotated[int, Field(ge=1)] = 3000


def _member(value: str) -> str:
    if value not in TIERS[1:]:
        raise ValueError(f"'{value}' is no member tier{did_you_mean(value, TIERS[1:])}")
    return value


_TIER = AfterValidator(_member)


class NodeSettings(_Model):
    """What a node says of itself and how it serves; every key has a default.

    Parameters
    ----------
    id
        Short name of the node, the same for ever: letters, digits, ``.``, ``_``, ``-``.
    title, organisation
        ``{zh: …, en: …}``, or one text for both.
    contact
        Mail address or page of the node's people.
    base_url
        Public address, when the requests do not show it (behind a proxy); without a slash at the end.
    database
        SQLAlchemy URL of the index; ``server.sqlite`` in the publication's folder by default.
    x_accel
        Internal location of nginx over the store's folder (``/store/``): nginx then sends the blobs of public data.
    on_access_end
        Command, a list of words, that ends the downloads which nginx is sending; run when access to something ends
        (`matcompute.server.cutting`). Needed with ``x_accel``; an empty list: such downloads may run to their end.
    page_size, max_page
        Items of a page: default and most.
    max_wait_seconds
        Longest time that a reader of the feed may wait for news.
    max_body_kb
        Largest body of a request, KiB.
    alerts
        When the node's people are told (`AlertRules`).
    quotas
        Tier → what its members may use in a month (`Quota`); a tier without one has no limit.
    header_seconds, body_seconds, send_seconds
        Time that a client has for its headers, for its body, and to take a piece of the answer.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "matcompute-node"
    title: Text = Text(zh="计算类数据节点", en="Computation-class data node")
    organisation: Text = Text()
    contact: str = ""
    base_url: Annotated[str, Field(pattern=r"^(https?://[^\s/]+(/[^\s]*)?[^\s/])?$")] = ""
    database: str = ""
    x_accel: Annotated[str, Field(pattern=r"^/([A-Za-z0-9._-]+/)+$")] | None = None
    on_access_end: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    page_size: Annotated[int, Field(ge=1, le=1000)] = 100
    max_page: Annotated[int, Field(ge=1, le=10_000)] = 1000
    limits: Limits = Limits()
    max_wait_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    max_body_kb: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    header_seconds: Annotated[float, Field(gt=0)] = 20.0
    body_seconds: Annotated[float, Field(gt=0)] = 30.0
    send_seconds: Annotated[float, Field(gt=0)] = 60.0
    alerts: AlertRules = AlertRules()
    quotas: dict[Annotated[str, _TIER], Quota] = {}
    node_class: Literal["computation"] = "computation"

    @field_validator("title", "organisation", mode="before")
    @classmethod
    def _both(cls, value: Any) -> Any:
        return {"zh": value, "en": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.x_accel is not None and self.on_access_end is None:
            raise ValueError(
                "x_accel needs on_access_end, the command that ends what nginx is sending when access ends: "
                "[nginx, -s, reload]; [] if it may run to its end"
            )
        return self

    @classmethod
    def load(cls, folder: Path) -> NodeSettings:
        """Read ``node.yaml`` in a publication's folder; without one, the defaults hold.

        Raises
        ------
        InputError
            If the file is no YAML mapping or a key is unknown or wrong; line and key are named.
        """
        path = folder / FILE
        if not path.exists():
            return cls()
        file = load_yaml(path)
        if file.problems:
            first = file.problems[0]
            raise InputError(f"{path}:{first.line}: {first.key}: {first.message}")
        if file.data is not None and not isinstance(file.data, dict):
            raise InputError(f"{path}: expected keys and values, such as 'id: my-node'")
        try:
            return cls.model_validate(file.data or {})
        except ValidationError as error:
            raise InputError(_message(path, file, error)) from error


def _message(path: Path, file: LocatedYaml, error: ValidationError) -> str:
    first = error.errors()[0]
    where = tuple(part for part in first["loc"] if isinstance(part, int | str))
    text = first["msg"]
    if first["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {
            "limits": Limits,
            "alerts": AlertRules,
            "quotas": Quota,
            "title": Text,
            "organisation": Text,
        }
        fields = parts[str(where[0])].model_fields if len(where) > 1 else NodeSettings.model_fields
        if where[:2] == ("alerts", "email") and len(where) > 2:
            fields = EmailOptions.model_fields
        text = f"no such key{did_you_mean(str(where[-1]), fields)}"
    return f"{path}:{file.place(where)[0]}: {format_key(where)}: {text}"
