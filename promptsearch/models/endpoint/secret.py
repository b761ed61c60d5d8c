"""The key of a server: where it comes from, and how it is taken out of all that comes back.

A server may repeat the key that it was sent, as it is or as JSON, URLs, HTML or base64 write it.
One pattern knows all of these forms, character by character, since each character may be written in
another way. What the pattern finds becomes `***`.
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
    """Check that a key is named, not given.

    Raises:
        EndpointError: It is no name of an environment variable; the message does not repeat it.
    """
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise EndpointError(
            "'key' is the name of an environment variable, such as OPENAI_API_KEY, "
            "never the key itself"
        )


def read_key(name: str, url: str) -> str:
    """The key that an environment variable holds.

    Args:
        name: The name of the variable.
        url: The URL of the server, for messages.

    Raises:
        EndpointDown: The variable holds no key, or something else.
    """
    secret = _value(name)
    if not secret:
        raise EndpointDown(
            f"the environment variable {name} is empty: it should hold the key of {url}"
        )
    if not (secret.isascii() and secret.isprintable()):  # the client's own error would show it
        raise EndpointDown(
            f"the environment variable {name} holds characters that no key has: "
            "look at how it is set"
        )
    return secret


def hide(text: str, name: str | None, *, short: bool = True) -> str:
    """A text without the key, whichever way it is written.

    Args:
        text: What a server said.
        name: The environment variable that holds the key; None where there is none.
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
    """A pattern for all forms in which a key may be written."""
    spelled = "".join(map(_spellings, secret))
    # This passes over nearly all places of a long answer.
    begun = f"(?=[{re.escape(secret[0])}%&\\\\])"
    if len(secret) < _SHORT:
        return re.compile(begun + spelled)
    encoded = [
        *_inside_base64(secret.encode()),
        secret.encode().hex(),
        secret.encode().hex().upper(),
    ]
    return re.compile("|".join([begun + spelled, *map(re.escape, encoded)]))


def _spellings(character: str) -> str:
    r"""A pattern for the forms of a character.

    They are the character as it is, the character with backslashes before it, and `\u0041`, `%41`,
    `&#65;`, `&#x41;` or `&amp;`. Each repetition is bounded: an answer full of backslashes must not
    keep the pattern busy.
    """
    code = ord(character)
    name = f"|&{codepoint2name[code]};" if code in codepoint2name else ""
    plain = r"\\{1,8}" if character == "\\" else rf"\\{{0,8}}{re.escape(character)}"
    coded = (
        rf"\\{{1,8}}(?:u00|x){code:02x}|%(?:25){{0,4}}{code:02x}"
        rf"|&#0{{0,4}}{code};|&#x0{{0,4}}{code:x};"
    )
    return f"(?:{plain}|(?i:{coded}){name})"


def _inside_base64(secret: bytes) -> list[str]:
    """The parts of a key's base64 that are the same whatever stands before and after the key.

    `Bearer `, for example, may stand before it. The parts are given in both alphabets of base64.
    """
    found = []
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret).decode()
        # From `begin` to `end`, the characters hold bits of the key alone.
        begin, end = -(-before * 8 // 6), (before + len(secret)) * 8 // 6
        found += [text[begin:end], text[begin:end].translate(str.maketrans("+/", "-_"))]
    return sorted(set(found), key=len, reverse=True)
