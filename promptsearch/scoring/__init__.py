"""The scoring engine: prompts and examples in, losses out, exact in float32.

Touch it to make scoring faster, or to let a kind of prompts meet the LM in a new way (`kinds.py`).
The words of the engine:

* row: an example with a prompt and an answer, as token ids from left to right.
* segment: the ids of a row before, between or behind its slots.
* lead: what stands in a row before the first slot, the same for all prompts.
* tree: rows merged into one, so that tokens with which they begin alike are computed once.
* trunk: the tokens above a whole tree, whose keys and values are read instead of computed.
* below: nearer to a row's end, as a tree is below its trunk; of layers, nearer to the embeddings.
* kept: held from call to call: keys and values of leads, or states that no gated prompt changes.
* apart: of prompts, not among the text's tokens; of rows, computed whole, without a trunk.
* beside: read by layers without standing in any row, as gated prompts are.
* owner: the place of the gated prompt that a tree or row attends to, among those of a pass.
* placed: of prompts, ready to go through the LM: ids in slots, and numbers for ids below zero.
* wave: the part of a call's work whose trunks are held in memory together.
* group: rows of a wave that go through the LM as one tree.
* pass: one run of trees through the LM, limited to what its device takes at a time.
* branch: one of the ways in which a row goes on while answers are generated: a beam, or a sample.
"""

from promptsearch.scoring.engine import Engine as Engine
