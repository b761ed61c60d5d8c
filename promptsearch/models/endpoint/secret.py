"""The key of a server: where it comes from, and how it is taken out of all that comes back.

A server may repeat the key that it was sent, as it is or as JSON, URLs, HTML or base64 write it.
One pattern knows all of these, character by character, since each may be written in another way;
what it finds becomes `***`.
"""

from __future__ import annotations

import base64
import os
import re
from functools import lru_cache
from html.entities import codepoint2name

from promptsearch.errors import EndpointDown, EndpointError

#: What stands for a key.
HIDDEN = "***"
#: Keys below this length, such as EMPTY, are no secrets: what a model writes may hold them by
#: chance, and is left as it is.
_SHORT = 8


def check_key(name: str | None) -> None:
    """See that a key is named, not given.

    Raises:
        EndpointError: It is no name of an environment variable; the message does not repeat it.
    """
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise EndpointError(
            "'key' is the name of an environment variable, such as OPENAI_API_KEY, never the key itself"
        )


def read_key(name: str, url: str) -> str:
    """The key that an environment variable holds.

    Raises:
        EndpointDown: It holds none, or something else.
    """
    secret = _value(name)
    if not secret:
        raise EndpointDown(
            f"the environment variable {name} is empty: it should hold the key of {url}"
        )
    if not (secret.isascii() and secret.isprintable()):  # the client would show it
        raise EndpointDown(
            f"the environment variable {name} holds characters that no key has: look at how it is set"
        )
    return secret


def hide(text: str, name: str | None, *, short: bool = True) -> str:
    """A text without the key, whichever way it is written.

    Args:
        text: What a server said.
        name: The environment variable that holds the key; None: there is none.
        short: Whether keys that are too short to be secrets are hidden as well.
    """
    secret = _value(name)
    if not secret or (len(secret) < _SHORT and not short):
        return text
    return _pattern(secret).sub(HIDDEN, text)


def _value(name: str | None) -> str:
    return os.environ.get(name or "", "").strip()


@lru_cache(maxsize=16)
def _pattern(secret: str) -> re.Pattern[str]:
    """What a key may look like."""
    spelled = "".join(map(_spellings, secret))
    begun = f"(?=[{re.escape(secret[0])}%&\\\\])"  # nearly all places of a long answer are passed over by this
    if len(secret) < _SHORT:
        return re.compile(begun + spelled)
    encoded = [
        *_inside_base64(secret.encode()),
        secret.encode().hex(),
        secret.encode().hex().upper(),
    ]
    return re.compile("|".join([begun + spelled, *map(re.escape, encoded)]))


def _spellings(character: str) -> str:
    r"""A character as it is, with backslashes before it, and as `\u0041`, `%41`, `&#65;`, `&#x41;` or `&amp;`.

    Each repetition is bounded: an answer of backslashes must not keep the pattern busy.
    """
    code = ord(character)
    name = f"|&{codepoint2name[code]};" if code in codepoint2name else ""
    plain = r"\\{1,8}" if character == "\\" else rf"\\{{0,8}}{re.escape(character)}"
    coded = rf"\\{{1,8}}(?:u00|x){code:02x}|%(?:25){{0,4}}{code:02x}|&#0{{0,4}}{code};|&#x0{{0,4}}{code:x};"
    return f"(?:{plain}|(?i:{coded}){name})"


def _inside_base64(secret: bytes) -> list[str]:
    """What of a key's base64 is the same whatever stands before and after it, such as `Bearer `, in both alphabets."""
    found = []
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret).decode()
        begin, end = (
            -(-before * 8 // 6),
            (before + len(secret)) * 8 // 6,
        )  # characters that hold bits of the key alone
        found += [text[begin:end], text[begin:end].translate(str.maketrans("+/", "-_"))]
    return sorted(set(found), key=len, reverse=True)
