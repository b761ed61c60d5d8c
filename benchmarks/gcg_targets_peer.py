"""The peer's side of `gcg_targets.py`, in an environment with nanogcg.

For each line of standard input, a search in JSON, it runs nanoGCG's own loop until its time is
over, and answers with what was best, and when. Nothing of promptsearch is imported here.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import nanogcg
import torch
import transformers
from nanogcg.gcg import GCG


class _Over(Exception):
    """The time is over."""


class Clocked(GCG):
    """nanoGCG that notes after each step what it has found, and when."""

    def start(self, work: dict[str, Any]) -> list[dict[str, Any]]:
        """Run until the time is over."""
        self._work, self._losses, self._tokens = work, [], 0
        self._curve: list[dict[str, Any]] = []
        self._begin = time.process_time()
        try:
            self.run(work["before"] + "{optim_str}", work["target"])
        except _Over:
            return self._curve
        raise SystemExit("nanoGCG ended before its time was over")

    def compute_token_gradient(self, optim_ids: torch.Tensor) -> torch.Tensor:
        """A step begins here, with the prompt that the last one ended with."""
        seconds = time.process_time() - self._begin
        loss, ids = self._losses[-1], optim_ids[0].tolist()
        if not self._curve:
            # What it reads must be what we read.
            before = self.tokenizer(self._work["before"])["input_ids"]
            if [before, ids, self.target_ids[0].tolist()] != self._work["ids"]:
                raise SystemExit("nanoGCG reads other tokens than ours")
        if seconds > self._work["seconds"]:
            raise _Over
        if not self._curve or loss < self._curve[-1]["loss"]:
            point = {"seconds": seconds, "tokens": self._tokens, "loss": loss, "ids": ids}
            self._curve.append(point)
        # A pass, and one backward through it for the prompt alone.
        self._tokens += 2 * (optim_ids.numel() + self.target_ids.numel())
        return super().compute_token_gradient(optim_ids)

    def _compute_candidates_loss_original(
        self, search_batch_size: int, input_embeds: torch.Tensor
    ) -> torch.Tensor:
        losses = super()._compute_candidates_loss_original(search_batch_size, input_embeds)
        self._losses.append(losses.min().item())
        self._tokens += input_embeds.shape[0] * input_embeds.shape[1]
        return losses


def main(folder: Path) -> None:
    """Search for each line of standard input."""
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)
    file = str(folder / "tokenizer.json")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=file)
    pool = torch.tensor(json.loads((folder / "pool.json").read_text()))
    others = torch.ones(model.config.vocab_size, dtype=torch.bool)
    others[pool] = False
    for line in sys.stdin:
        work = json.loads(line)
        transformers.set_seed(work["seed"])
        config = nanogcg.GCGConfig(
            optim_str_init=work["first"], search_width=work["width"], num_steps=100_000
        )
        search = Clocked(model, tokenizer, config)
        search.not_allowed_ids = others.nonzero()[:, 0]
        print(json.dumps(search.start(work)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
