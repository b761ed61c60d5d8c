"""Language models. The only folder that imports transformers."""

from promptsearch.model.language_model import LanguageModel as LanguageModel
