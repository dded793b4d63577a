"""Whether a mean in the place of the image mends what evicted heads lose in replies; a trial, not in the engine.

    python -m benchmarks.evict_compensation PROFILE [--dataset synthetic --families describe] [--samples 200]

With A the share of a reply row's attention that falls on dropped image blocks, a head's output is A times that of the
image plus 1 - A times that of the text, and an evicted head puts out the latter. The mend: 1 - mean A times it, plus
the mean of A times the image's output, both over reply rows of the half `choosing`. Both are measured on `measuring`,
lowest effect first, teacher-forced, and compared by McNemar's test. Owns the formula; knows no engine.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402

from calibrate.ablation.plans import SHORT_CURVE, configurations  # noqa: E402
from calibrate.datasets import Dataset, Sample, open_dataset  # noqa: E402
from calibrate.masking.accuracy import AnswerMatcher  # noqa: E402
from calibrate.masking.masks import hidden_keys, masked_output  # noqa: E402
from calibrate.masking.positions import Positions  # noqa: E402
from calibrate.models.answer_logits import next_token_logits  # noqa: E402
from calibrate.models.decoder_attention import decoder_attention  # noqa: E402
from calibrate.models.loading import LoadedModel, load_model  # noqa: E402
from calibrate.models.prompts import Batch, make_answered_batch  # noqa: E402
from calibrate.runs.loop import batches  # noqa: E402
from calibrate.stats.accuracy import Accuracy  # noqa: E402
from calibrate.stats.paired_tests import PairedCounts  # noqa: E402
from profiles.store import load_profile  # noqa: E402
from profiles.treatments import EVICT  # noqa: E402


@dataclass
class Means:
    """Over reply rows, of every head: `weight`, `(layers, heads)`, and `image`, `(layers, heads, head size)`."""

    weight: Tensor
    image: Tensor


class Evicted:
    """Evicts heads of a model in replies, with a mean in the image's place or without; or sums up the means."""

    def __init__(self, loaded: LoadedModel, block_size: int) -> None:
        shape = (loaded.geometry.layers, loaded.geometry.query_heads)
        self.loaded, self.block_size, self.rows = loaded, block_size, 0
        self.sums = Means(torch.zeros(shape), torch.zeros(*shape, loaded.geometry.head_size))
        self.heads: dict[int, list[int]] | None = None  # None: sum up, treat none
        self.means: Means | None = None
        self._layer = {id(module): layer for layer, module in enumerate(loaded.attentions)}
        self._positions = Positions(loaded.image_token_id, block_size)

    def logits(self, batch: Batch) -> Tensor:
        expected = batch.expected
        lengths = None if expected is None else expected.prompt_lengths
        self._positions = Positions(self.loaded.image_token_id, self.block_size, lengths)
        self._positions.note(batch.inputs["input_ids"], batch.valid)
        if self.heads is None and (reply := self._positions.reply) is not None:
            self.rows += int(reply.sum())
        return next_token_logits(self.loaded, batch)

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        layer, reply = self._layer.get(id(module)), self._positions.reply
        if layer is None or reply is None or (self.heads is not None and not self.heads.get(layer)):
            return output, None
        group = query.shape[1] // key.shape[1]
        kept = query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        hidden, zeroed = hidden_keys(EVICT, self._positions)
        text = masked_output(*kept, mask, hidden, zeroed, options["scaling"])
        if self.heads is None:
            weight = self._weight(kept[0], kept[1], hidden, options["scaling"])[reply]
            self.sums.weight[layer] += weight.sum(0)
            self.sums.image[layer] += (output[reply] - (1 - weight[..., None]) * text[reply]).sum(0)
            return output, None
        if self.means is not None:
            weight, image = self.means.weight[layer], self.means.image[layer]
            text = torch.where(reply[..., None, None], (1 - weight[:, None]) * text + image, text)
        output = output.clone()
        output[:, :, self.heads[layer]] = text[:, :, self.heads[layer]]
        return output, None

    def _weight(self, query: Tensor, key: Tensor, hidden: Tensor, scaling: float) -> Tensor:
        """Attention on hidden keys, `(batch, n, heads)`."""
        n = key.shape[2]
        logits = (query @ key.transpose(2, 3) * scaling).masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf)
        return (logits.softmax(-1) * hidden[:, None]).sum(-1).transpose(1, 2)


def answered(loaded: LoadedModel, samples: Sequence[Sample]) -> Iterator[tuple[Batch, list[Sample]]]:
    for some in batches(samples, 8):
        yield make_answered_batch(loaded, some)[0], some


def half(options: argparse.Namespace, split: str, samples: int) -> Dataset:
    families = options.families.split(",") if options.families else None
    return open_dataset(options.dataset, samples=samples, seed=0, split=split, families=families)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evict_compensation")
    parser.add_argument("profile")
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--families", default="describe")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--calibration-samples", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("-k", default="50%,62.5%,75%,100%")
    options = parser.parse_args()
    profile = load_profile(options.profile)
    loaded = load_model(profile.model.name, "float32", "cpu")
    evicted, matcher = Evicted(loaded, options.block_size), AnswerMatcher(loaded)
    shape = SHORT_CURVE._replace(rows=SHORT_CURVE.rows[:1])
    chosen = configurations(
        profile,
        options.k.split(","),
        shape=shape,
        draws=1,
        seed=0,
        granularity="kv_group",
        how=EVICT.name,
        rank_by="effect",
    )
    made = list(answered(loaded, list(half(options, "measuring", options.samples))))
    with torch.inference_mode(), decoder_attention(loaded, evicted.attend):
        for batch, _ in answered(loaded, list(half(options, "choosing", options.calibration_samples))):
            evicted.logits(batch)
        means = Means(evicted.sums.weight / evicted.rows, evicted.sums.image / evicted.rows)
        print(f"{evicted.rows} reply rows; mean share of attention on dropped image blocks {means.weight.mean():.3f}")
        for one in chosen:
            evicted.heads = {}
            for layer, head in one.heads:
                evicted.heads.setdefault(layer, []).append(head)
            right = []
            for evicted.means in (None, means):
                found = [matcher.matches(evicted.logits(batch).argmax(-1), samples) for batch, samples in made]
                right.append(np.concatenate(found))
            pairs, shares = PairedCounts.of(*right), [Accuracy(int(each.sum()), len(each)) for each in right]
            plain, mended = (f"{each.share:.1%} ({each.interval[0]:.1%} to {each.interval[1]:.1%})" for each in shares)
            low, high = pairs.interval
            difference = f"{pairs.difference:+.1%} ({low:+.1%} to {high:+.1%}), p = {pairs.p:.3f}"
            print(f"{one.share:6.1%} of the heads: evicted {plain}, with means {mended}, {difference}", flush=True)


if __name__ == "__main__":
    main()
