"""The scoring engine: prompts and examples in, losses out, exact in float32.

The words of the engine:

* lead: an example's tokens before the first slot, which no prompt changes; those of a model
  (`LanguageModel.lead`) are the special tokens that its tokenizer puts before every text;
* tree: rows of one pass, merged so that tokens which rows begin with alike stand in it once;
* trunk: the tokens above a whole tree, whose keys and values are known before the tree's pass;
* below: nearer to the end of a row; a token sees the tokens above it, and those of its trunk. Of
  layers, below means nearer to the embeddings;
* kept: held from call to call: keys and values of leads, or states that enter the lowest layer that
  attends to gated prompts;
* apart: not among the tokens of the text, said of prefixes, gated prompts and changed weights; in a
  plan, rows are computed apart where each is a tree of its own, without a trunk;
* beside: read by layers without a place in the row, as gated prompts are;
* owner: the place of the gated prompt that a tree or row attends to, among those of the pass;
* wave: the part of a call's work whose trunks are held in memory together;
* pass: one forward through the LM, of the trees of some groups of a wave.
"""

from promptsearch.scoring.engine import Engine as Engine
