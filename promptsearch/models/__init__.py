"""Language models; no other folder but `testing` imports transformers."""

from promptsearch.models.language_model import LanguageModel as LanguageModel
