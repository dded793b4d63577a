"""Whether a mean in the place of the image mends what evicted heads lose in replies; a trial, not in the engine.

    python -m benchmarks.evict_compensation PROFILE [--families describe] [--samples 200]

With A the share of a reply row's attention that falls on dropped image blocks, a head's output is A times that of the
image plus 1 - A times that of the text, and an evicted head puts out the latter. The mend: 1 - mean A times it, plus
the mean of A times the image's output, both over the reply rows of the half `choosing`. Both are measured on the half
`measuring`, lowest effect first and at random, teacher-forced, and compared by McNemar's test. Prompts, which evicted
heads see in full, are computed once for all selections. Owns the formula; knows no engine.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import DynamicCache  # noqa: E402

from calibrate.ablation.plans import SHORT_CURVE, Configuration, configurations  # noqa: E402
from calibrate.datasets import Sample, open_dataset  # noqa: E402
from calibrate.datasets.families import Right  # noqa: E402
from calibrate.masking.accuracy import AnswerMatcher  # noqa: E402
from calibrate.masking.masks import hidden_keys  # noqa: E402
from calibrate.masking.positions import Positions  # noqa: E402
from calibrate.models.batches import make_answered_batch  # noqa: E402
from calibrate.models.decoder_attention import decoder_attention  # noqa: E402
from calibrate.models.loading import LoadedModel, load_model  # noqa: E402
from calibrate.runs.loop import batches  # noqa: E402
from calibrate.stats.accuracy import Accuracy  # noqa: E402
from calibrate.stats.paired_tests import PairedCounts  # noqa: E402
from profiles.names import Granularity  # noqa: E402
from profiles.store import load_profile  # noqa: E402
from profiles.treatments import TREATMENTS  # noqa: E402


@dataclass
class Prompts:
    """Computed prompts of one length: their cache, the logits behind them, and the tokens and mask of the replies.

    `seen`: keys of prompt and reply that a full head sees, `(replies, n)`; `dropped`: those that an evicted one does
    not, `(batch, replies, n)`.
    """

    samples: list[Sample]
    cache: DynamicCache
    first: Tensor
    tokens: Tensor
    seen: Tensor
    dropped: Tensor


class Replies:
    """Computes replies behind prompts, with heads evicted, and a mean in the image's place or without.

    `heads`: those evicted, by layer. `means`: of every head the mean weight of what is dropped, `(layers, heads, 1)`,
    and of its part of the output, `(layers, heads, head size)`; None: no mend. `sums`: where set, added to in order.
    """

    def __init__(self, loaded: LoadedModel, block_size: int, treatment: str) -> None:
        self.loaded, self.block_size, self.treatment = loaded, block_size, TREATMENTS[treatment]
        self.heads: dict[int, list[int]] = {}
        self.means: tuple[Tensor, Tensor] | None = None
        self.sums: tuple[Tensor, Tensor] | None = None
        self._prompts: Prompts | None = None
        self._layer = {id(module): layer for layer, module in enumerate(loaded.attentions)}

    def compute(self, samples: list[Sample]) -> Prompts:
        """The prompts of some samples."""
        batch, expected = make_answered_batch(self.loaded, samples)
        (length,) = set(expected.prompt_lengths)
        ids, model = batch.inputs["input_ids"], self.loaded.model
        positions = Positions(self.block_size, expected.prompt_lengths)
        positions.note(batch.spans, batch.valid)
        hidden, _ = hidden_keys(self.treatment, positions)
        cache = DynamicCache()
        self._prompts = None
        inputs = {**batch.inputs, "input_ids": ids[:, :length]}
        state = model.model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
        seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()[length:]
        return Prompts(samples, cache, model.lm_head(state[:, -1:]), ids[:, length:], seen, hidden[:, length:])

    def logits(self, prompts: Prompts) -> Tensor:
        """Of the first token of each reply and of those behind each of its tokens, `(batch, 1 + replies, words)`."""
        decoder, length = self.loaded.language_model, prompts.cache.get_seq_length()
        self._prompts = prompts
        words: Any = decoder.embed_tokens
        state = decoder(inputs_embeds=words(prompts.tokens), past_key_values=prompts.cache).last_hidden_state
        prompts.cache.crop(length)
        return torch.cat([prompts.first, self.loaded.model.lm_head(state)], 1)

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """As transformers calls it; the tensors are `(batch, heads, n, head size)`."""
        group, layer, prompts = query.shape[1] // key.shape[1], self._layer.get(id(module)), self._prompts
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        if prompts is None or layer is None:
            output = nn.functional.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
            return output.transpose(1, 2), None
        weights = (query @ key.transpose(2, 3) * options["scaling"]).masked_fill(~prompts.seen, -torch.inf).softmax(-1)
        output = weights @ value
        image = weights * prompts.dropped[:, None]
        weight, of_image = image.sum(-1, keepdim=True), image @ value
        if self.sums is not None:
            self.sums[0][layer] += weight.sum((0, 2))
            self.sums[1][layer] += of_image.sum((0, 2))
        if heads := self.heads.get(layer):
            text = ((output - of_image) / (1 - weight))[:, heads]
            if self.means is not None:
                share, mean = (table[layer, heads][:, None] for table in self.means)
                text = (1 - share) * text + mean
            output[:, heads] = text
        return output.transpose(1, 2), None


def right(replies: Replies, prompts: Sequence[Prompts], heads: Sequence[tuple[int, int]]) -> Right:
    """Which samples are answered rightly with these heads evicted."""
    replies.heads = {layer: [head for one, head in heads if one == layer] for layer, _ in heads}
    matcher = AnswerMatcher(replies.loaded)
    return np.concatenate([matcher.matches(replies.logits(one).argmax(-1), one.samples) for one in prompts])


def row(label: str, plain: Right, mended: Right) -> str:
    """A row of the table: both accuracies, their difference and its test."""
    cells = [label]
    for each in (plain, mended):
        own = Accuracy(int(each.sum()), len(each))
        cells.append(f"{own.share:.1%} ({own.interval[0]:.1%} to {own.interval[1]:.1%})")
    pairs = PairedCounts.of(plain, mended)
    low, high = pairs.interval
    return " | ".join(
        [*cells, f"{100 * pairs.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})", f"{pairs.p:.3f}"]
    )


def name_of(one: Configuration) -> str:
    return f"{one.share:.1%} {'at random' if one.select == 'random' else 'lowest first'}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evict_compensation")
    parser.add_argument("profile", type=Path)
    parser.add_argument("--treatment", default="evict", choices=[one.name for one in TREATMENTS.values() if one.evicts])
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--families", default="describe")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--calibration-samples", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("-k", default="50%,62.5%,75%,100%")
    options = parser.parse_args()
    profile = load_profile(options.profile)
    loaded = load_model(profile.model.name, "float32", "cpu")
    granularity: Granularity = "kv_group" if profile.geometry.group_size > 1 else "query_head"
    chosen = configurations(
        profile,
        options.k.split(","),
        shape=SHORT_CURVE,
        draws=options.draws,
        seed=0,
        granularity=granularity,
        how=options.treatment,
        rank_by="effect",
    )
    replies = Replies(loaded, options.block_size, options.treatment)
    halves = {"choosing": options.calibration_samples, "measuring": options.samples}
    with torch.inference_mode(), decoder_attention(loaded, replies.attend):
        choosing, measuring = (
            [
                replies.compute(some)
                for some in batches(
                    open_dataset(
                        options.dataset, samples=samples, seed=0, split=split, families=options.families.split(",")
                    ),
                    8,
                )
            ]
            for split, samples in halves.items()
        )
        shape = (loaded.geometry.layers, loaded.geometry.query_heads)
        replies.sums = torch.zeros(*shape, 1), torch.zeros(*shape, loaded.geometry.head_size)
        right(replies, choosing, [])
        rows = sum(one.tokens.numel() for one in choosing)
        means = replies.sums[0] / rows, replies.sums[1] / rows
        replies.sums = None
        whole = right(replies, measuring, [])
        print(
            f"{rows} reply rows; share of attention on dropped blocks {means[0].mean():.3f}; whole {whole.mean():.1%}"
        )
        print("heads | evicted | with means | difference | p")
        for one in chosen:
            found = []
            for replies.means in (None, means):
                found.append(right(replies, measuring, one.heads))
            print(row(name_of(one), *found), flush=True)


if __name__ == "__main__":
    main()
