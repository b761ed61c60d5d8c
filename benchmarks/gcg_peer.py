"""The peer's side of `gcg.py`, in an environment with nanogcg.

It reads a line, scores the candidates once, and answers in seconds.

It is called with a folder (model, ids) and a dtype. Nothing of promptsearch is imported here.
"""

import json
import sys
import time
from pathlib import Path

import nanogcg
import numpy as np
import torch
import transformers
from nanogcg.gcg import GCG, find_executable_batch_size


def main(folder: Path, dtype: str) -> None:
    """Set up what `GCG.run` sets up before its loop, then score.

    The scoring part of a step is done for each line of standard input.
    """
    work = json.loads((folder / "work.json").read_text())
    torch.set_num_threads(work["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=getattr(torch, dtype)
    ).to(work["device"])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    search = GCG(model, tokenizer, nanogcg.GCGConfig(search_width=len(work["candidates"])))
    before, after, search.target_ids = (
        torch.tensor([work[name]], device=work["device"]) for name in ("before", "after", "target")
    )
    embed = search.embedding_layer
    with torch.no_grad():
        search.prefix_cache = model(inputs_embeds=embed(before), use_cache=True).past_key_values
        after_embeds, target_embeds = embed(after), embed(search.target_ids)
        candidates = torch.tensor(work["candidates"], device=work["device"])
        for _ in sys.stdin:
            begin = time.perf_counter()
            width = len(candidates)
            embeds = torch.cat(
                [
                    embed(candidates),
                    after_embeds.repeat(width, 1, 1),
                    target_embeds.repeat(width, 1, 1),
                ],
                dim=1,
            )
            loss = find_executable_batch_size(search._compute_candidates_loss_original, width)(
                embeds
            )
            losses = loss.float().cpu().numpy()  # waits for a GPU
            seconds = time.perf_counter() - begin
            np.save(folder / f"{dtype}.npy", losses)
            print(seconds, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
