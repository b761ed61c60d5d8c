"""Encoder-decoder models: an encoder reads prompt and input, a decoder writes the answer."""
