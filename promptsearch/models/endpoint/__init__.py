"""The client of a server with OpenAI's completions API: vLLM, SGLang, llama.cpp and many others.

    POST URL/completions {"model": ..., "prompt": ..., "max_tokens": ...}

A server is a stranger: it may be slow, broken or hostile. What it sends passes through these files,
in this order:

* `transport.py`: bytes, within one deadline and one size;
* `secret.py`: the key, taken out of whatever comes back before anything reads it;
* `answers.py`: JSON, in which every value that is used is checked for its type, size and range,
  before it is what the server said (`said.py`);
* `client.py`: one request, sent again where another attempt may help (`again.py`), and when the
  server can bear it (`pace.py`); whatever else goes wrong is an `EndpointError`.

Which scores a server can give is found out once (`way.py`), on known texts (`echo.py`); then many
scores are asked for at a time (`asking.py`).
"""

from promptsearch.models.endpoint.client import (
    Endpoint,
    EndpointRefused,
    EndpointUnavailable,
    Price,
)
from promptsearch.models.endpoint.echo import Echo
from promptsearch.models.endpoint.said import (
    Completion,
    Likely,
    Logprobs,
    Place,
    estimate_tokens,
)
from promptsearch.models.endpoint.secret import check_key
from promptsearch.models.endpoint.url import check_url
from promptsearch.models.endpoint.wanted import Unfinished
from promptsearch.models.endpoint.way import Way, find_way

__all__ = [
    "Completion",
    "Echo",
    "Endpoint",
    "EndpointRefused",
    "EndpointUnavailable",
    "Likely",
    "Logprobs",
    "Place",
    "Price",
    "Unfinished",
    "Way",
    "check_key",
    "check_url",
    "estimate_tokens",
    "find_way",
]
