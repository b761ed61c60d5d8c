"""Language models. The only folder that imports transformers."""

from promptsearch.models.language_model import LanguageModel as LanguageModel
