"""A task folder for lm-evaluation-harness, which scores a prompt on its test split."""
