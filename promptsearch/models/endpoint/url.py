"""The address of a server."""

from __future__ import annotations

import httpx2

from promptsearch.errors import EndpointError


def check_url(url: str) -> str:
    """The URL without a slash at its end.

    Raises:
        EndpointError: It is no URL, or holds what may be a secret; the message does not repeat it.
    """
    try:
        parsed = httpx2.URL(url.strip())
    except (httpx2.InvalidURL, TypeError, ValueError) as error:
        raise EndpointError(
            "the endpoint's URL cannot be read: expected http://HOST:PORT/v1"
        ) from error.__cause__
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise EndpointError(
            "the endpoint's URL holds a user, a password or a query, which may be secrets: "
            "leave them out, and name the environment variable that holds the key with 'key'"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise EndpointError(
            "the endpoint's URL should look like http://HOST:PORT/v1 or https://HOST/v1"
        )
    return str(parsed).rstrip("/")
