"""Instructions from a proposer: what it is asked, and what is read from its answers.

A request is a text whose last line is unfinished, below a few finished ones of the same form. Small
models follow no instructions about instructions, but they go on with such a text: told to say "Is
this movie review good or bad?" in other words, SmolLM2-135M-Instruct answers the question; where
other instructions were reworded before, it finds "What is the sentiment of this review?". Larger
models see what is wanted, too. Whatever comes back is read the same way. Where nothing new comes
back, asking begins again from other examples, at a higher temperature: a model that goes on with
the same instructions soon says the same again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from promptsearch.errors import NothingUsable
from promptsearch.prompts.text import TextPrompt
from promptsearch.search.objective import Objective
from promptsearch.tasks.task import Example

#: The request for an instruction that leads from inputs to answers; solved examples are filled in.
FROM_EXAMPLES = """Input: cat
Output: cats
Input: house
Output: houses
Instruction: Write the plural of the word.

Input: Berlin
Output: Germany
Input: Cairo
Output: Egypt
Instruction: Name the country of the city.

Input: I waited an hour and the soup was cold
Output: no
Input: what a lovely place, we will come again
Output: yes
Instruction: Does the guest like the restaurant? Answer yes or no.

{}Instruction:"""
#: The request for another wording of an instruction, which is filled in.
VARIATION = """Instruction: Write the plural of the word.
In other words: What is the word for more than one of these?

Instruction: Add the two numbers.
In other words: Give the sum of both numbers.

Instruction: {}
In other words:"""
#: The request to cross two instructions and to change what comes of it; the better one stands last.
CROSSING = """First: Write the plural of the word.
Second: What are many of these called?
New: Write what many of these are called.

First: Does the guest like the restaurant? Answer yes or no.
Second: Say whether this guest was happy.
New: Was the guest happy with the restaurant, yes or no?

First: {}
Second: {}
New:"""


def solved(examples: Iterable[Example]) -> str:
    """Examples as a proposer sees them: fields and answer, two lines each."""
    lines = [
        f"Input: {', '.join(map(str, each.fields.values()))}\nOutput: {each.answer.strip()}\n"
        for each in examples
    ]
    return "".join(lines)


def read_instruction(text: str) -> str:
    """The instruction in a proposer's answer; empty where there is none.

    It is the first line of the answer without number, label and quotes.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"^(?:[-*#>]+|\(?\d+[.):])\s+", "", line)
    line = re.sub(
        r"^\W*(?:the )?(?:new )?(?:instruction|prompt)(?: \d+)?(?: is| was)?:[\s*]*",
        "",
        line,
        flags=re.IGNORECASE,
    )
    line = line.strip("*`_ ")
    if quoted := re.fullmatch(r"""["'“]([^"“”]+)["'”]""", line):
        line = quoted[1]
    # A label has a number or marks behind it, if anything: other words are an instruction's own.
    labelled = re.match(
        r"(?:input|output|wanted|feedback|score|first|second|in other words)\b[\W\d]*:",
        line,
        flags=re.IGNORECASE,
    )
    if labelled or not any(character.isalnum() for character in line):
        return ""
    return " ".join(line.split())


class Written(NamedTuple):
    """New instructions that a proposer wrote.

    Args:
        texts: A new instruction for the place of each request that was answered with one; at least
            one.
        anew: Whether asking began again: they come from other examples, and not from what the
            requests held.
    """

    texts: dict[int, str]
    anew: bool


class Instructions:
    """New instructions: usable, none of them twice, and none too long, or to score.

    Args:
        objective: The objective, which has the proposer.
        seed: The strategy's seed.
        longest: The number of tokens that an instruction must stay below; a longer one is cut after
            its last whole sentence, or not taken.
        temperature: The temperature at which the proposer draws.
        retries: The number of further tries after a vain one, each at a temperature that is higher
            by a step.
    """

    #: By how much the temperature rises after a vain try, and how far: what is drawn more freely
    #: than this is no text.
    STEP, HOTTEST = 0.1, 1.5

    def __init__(
        self, objective: Objective, *, seed: int, longest: int, temperature: float, retries: int
    ) -> None:
        self._objective, self._seed = objective, seed
        self._longest, self._temperature, self._retries = longest, temperature, retries
        self._known: set[str] = set()

    def know(self, texts: Iterable[str]) -> None:
        """Remember texts that need not be proposed."""
        self._known.update(texts)

    def propose(self, requests: Callable[[], Sequence[str]], restart: Callable[[], str]) -> Written:
        """Ask the proposer until there is something new.

        Args:
            requests: Returns the requests of the first try.
            restart: Returns a request that leads from other examples to an instruction; after a
                vain try, it takes the place of each request.

        Raises:
            NothingUsable: No try gave a new instruction, or none could be scored any more.
            BudgetExhausted: The proposer costs more than is left.
        """
        asked, texts = requests(), list[str]()
        for vain in range(self._retries + 1):
            if not self._objective.affordable(1):
                raise NothingUsable("the budget pays for no further instruction")
            hotter = min(self._temperature + vain * self.STEP, self.HOTTEST)
            texts = self._objective.proposer.generate(
                [restart() for _ in asked] if vain else asked,
                seed=self._seed,
                max_tokens=self._longest,
                temperature=max(self._temperature, hotter),
                stop=("\n",),
            )
            found: dict[int, str] = {}
            for place, text in enumerate(texts):
                if (line := self._read(text)) and line not in self._known:
                    found[place] = line
                    self._known.add(line)
            if found:
                return Written(found, anew=vain > 0)
        raise NothingUsable(
            f"the proposer gave nothing usable in {self._retries + 1} tries: no new one of less "
            f"than {self._longest} tokens that the budget pays. Its last answer was "
            f"{texts[-1][:80]!r}. "
            "Take a more able model as 'proposer', another temperature or more 'retries'"
        )

    def _read(self, text: str) -> str:
        line = read_instruction(text)
        if self._short(line):
            return line
        # The text was broken off: its whole sentences are what stands before the last one.
        whole = re.match(r".*[.!?](?=\s)", line)
        return whole[0] if whole and self._short(whole[0]) else ""

    def _short(self, text: str) -> bool:
        length = self._objective.length(TextPrompt(text))
        # Towards the end of a budget, shorter ones can still be scored.
        return length < self._longest and self._objective.affordable(length) > 0
