"""Answers of a model to samples, in batches: the plain loop that tests compare others with."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from calibrate.datasets.families import Right
from calibrate.datasets.sample import Sample
from calibrate.masking.accuracy import AnswerMatcher
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.batches import make_answered_batch
from calibrate.models.loading import LoadedModel
from calibrate.runs.loop import batches


@dataclass(frozen=True)
class Answered:
    """Ids, families and correctness of samples, in order."""

    ids: list[str]
    families: list[str]
    right: Right


def answer_all(loaded: LoadedModel, samples: Iterable[Sample], *, batch_size: int = 32) -> Answered:
    """Answer every sample with the likeliest tokens."""
    samples, matcher, right = list(samples), AnswerMatcher(loaded), []
    for batch in batches(samples, batch_size):
        tokens = next_token_logits(loaded, make_answered_batch(loaded, batch)[0]).argmax(-1)
        right.append(matcher.matches(tokens, batch))
    ids, families = [sample.id for sample in samples], [sample.family for sample in samples]
    return Answered(ids, families, np.concatenate(right))
