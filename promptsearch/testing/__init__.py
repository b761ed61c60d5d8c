"""Help for authors of strategies.

`planted` has objectives whose best prompt is known, `conformance` the tests that every strategy
must pass, `tiny` small models and a tokenizer made without download. Import from the modules:
`conformance` needs pytest, `tiny` transformers.
"""
