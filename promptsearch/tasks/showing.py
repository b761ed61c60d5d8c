"""Templates for prompts of solved examples, which stand before the input.

Brown et al. 2020, "Language Models are Few-Shot Learners", arXiv:2005.14165, figure 2.1: the model
reads the examples first, and goes on from the input as they do.
"""

from __future__ import annotations

from dataclasses import replace

from promptsearch.tasks.notation import PROMPT, data_fields
from promptsearch.tasks.template import Template


def showing(template: Template) -> Template:
    """A template whose first slot stands before the input.

    Where a field stands before the first slot, there is one more slot in front of all text or, in
    a chat, of the first message with a field. Else it is the template itself.

    Args:
        template: The template as the user wrote it.
    """
    if template.fixed:
        return template
    slot = f"{{{PROMPT}}}"
    if template.messages:
        contents = [content for _, content in template.messages]
        first = next(i for i, content in enumerate(contents) if data_fields(content))
        contents[first] = slot + contents[first]
        roles = [role for role, _ in template.messages]
        new = Template.parse([{role: c} for role, c in zip(roles, contents, strict=True)])
    else:
        new = Template.parse(slot + template.text)
    new = replace(new, marks=template.marks, end_token=template.end_token)
    return new.in_middle if template.behind else new
