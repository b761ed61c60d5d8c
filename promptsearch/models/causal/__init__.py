"""Causal language models: how rows go through them, and how rows share what they begin with."""
