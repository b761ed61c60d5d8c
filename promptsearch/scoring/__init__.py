"""The scoring engine: prompts and examples in, losses out, exact in float32."""

from promptsearch.scoring.engine import Engine as Engine
