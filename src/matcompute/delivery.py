"""Tell people by a webhook (JSON by POST) or by e-mail: campaigns send notices this way, the server its alerts."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict, Field

from matcompute.errors import MatcomputeError

__all__ = ["DeliveryError", "EmailOptions", "secret", "send_email", "send_webhook"]

TIMEOUT_S = 15.0


class DeliveryError(MatcomputeError):
    """Something cannot be delivered."""


class EmailOptions(BaseModel):
    """How mail is sent.

    Parameters
    ----------
    host, port, security
        The mail server, and how the line to it is closed: ``none``, ``starttls``, ``tls``.
    sender, to
        Addresses; in files ``from`` and ``to``.
    user, password_env
        Name at the mail server, and the environment variable that holds the password: files hold no secrets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    host: str = "localhost"
    port: int = Field(25, ge=1, le=65535)
    sender: str = Field(alias="from", min_length=3)
    to: tuple[str, ...] = Field(min_length=1)
    security: Literal["none", "starttls", "tls"] = "none"
    user: str | None = None
    password_env: str | None = None


def secret(variable: str | None) -> str | None:
    """Return what an environment variable holds; None for no variable.

    Raises
    ------
    DeliveryError
        If it is not set.
    """
    if variable is None:
        return None
    value = os.environ.get(variable)
    if not value:
        raise DeliveryError(
            f"the environment variable {variable} is not set where the program that tells was started"
        )
    return value


def send_webhook(url: str, content: dict[str, Any], *, token: str | None = None) -> None:
    """POST a JSON document.

    Raises
    ------
    DeliveryError
        If it is not accepted with a status of 200 to 299. The address may be a secret: only its host is named.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "matcompute"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        host = urlsplit(url).hostname
        request = Request(url, data=json.dumps(content).encode(), headers=headers, method="POST")
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            status = answer.status
    except HTTPError as error:
        status = error.code
    except (URLError, OSError) as error:
        raise DeliveryError(f"webhook at {host}: {getattr(error, 'reason', error)}") from error
    except ValueError as error:
        raise DeliveryError("webhook: what is given is no address") from error
    if not 200 <= status < 300:
        raise DeliveryError(f"webhook at {host}: status {status}")


def send_email(options: EmailOptions, subject: str, text: str, *, at: float | None = None) -> None:
    """Send a mail by SMTP.

    Parameters
    ----------
    options
        Where to, and how.
    subject, text
        Of the subject only the first line, cut to what mail programs show.
    at
        Time of what is told (seconds since 1970); now by default.

    Raises
    ------
    DeliveryError
        If the server does not take it.
    """
    message = EmailMessage()
    message["Subject"] = " ".join(subject.splitlines()[:1])[:140]
    message["From"], message["To"] = options.sender, ", ".join(options.to)
    message["Date"] = formatdate(at)
    message["Message-ID"] = make_msgid(domain="matcompute")
    message.set_content(text)
    try:
        context = ssl.create_default_context() if options.security != "none" else None
        server = (
            smtplib.SMTP_SSL(options.host, options.port, timeout=TIMEOUT_S, context=context)
            if options.security == "tls"
            else smtplib.SMTP(options.host, options.port, timeout=TIMEOUT_S)
        )
        with server:
            if options.security == "starttls":
                server.starttls(context=context)
            if options.user:
                server.login(options.user, secret(options.password_env) or "")
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise DeliveryError(f"e-mail by {options.host}:{options.port}: {error}") from error
