"""Masked language models: each token sees all of its row, and mask tokens stand for answers."""
