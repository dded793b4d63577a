"""Logits where answers are predicted, and the log-odds of an answer.

Owns which position they are read at. Does not know samples, or which answer is right.
"""

from typing import Any

import torch
from torch import Tensor

from calibrate.models.batches import Batch
from calibrate.models.decoder import output_logits
from calibrate.models.loading import LoadedModel


@torch.inference_mode()
def next_token_logits(loaded: LoadedModel, batch: Batch) -> Tensor:
    """Logits of the first answer token, shape `(batch, vocabulary)`, float32; `(batch, m, …)` of expected answers."""
    return answer_logits(
        loaded.model, loaded.model.model(**batch.inputs, use_cache=False).last_hidden_state, batch.predicting
    )


def answer_logits(model: Any, hidden: Tensor, positions: Tensor) -> Tensor:
    """Logits at some positions, `(batch, vocabulary)` or `(batch, m, vocabulary)`, float32.

    Parameters
    ----------
    hidden
        What the decoder puts out, `(batch, n, hidden)`.
    positions
        Of each sample, `(batch,)` or `(batch, m)`.
    """
    return output_logits(model, at_positions(hidden, positions))


def at_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """The states at some positions, `(batch, n, width)` and `(batch,)` or `(batch, m)` to `(batch, [m,] width)`."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows if positions.ndim == 1 else rows[:, None], positions]


def log_odds(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p − log(1 − p) of answers, where p is the product over their tokens.

    Parameters
    ----------
    logits, tokens
        `(batch, vocabulary)` and `(batch,)` of answers of one token; or `(batch, m, vocabulary)` and `(batch, m)`, each
        token predicted behind those before it, at least one of them, the rest -1.

    Returns
    -------
    `(batch,)`
    """
    if tokens.ndim == 1:
        logits, tokens = logits[:, None], tokens[:, None]
    place, counted = tokens.clamp(min=0)[..., None], tokens >= 0
    each = logits.gather(2, place)[..., 0] - logits.scatter(2, place, -torch.inf).logsumexp(2)
    if each.shape[1] == 1:
        return each[:, 0]
    # 1 − p is the sum over the tokens of the probability that each is the first to be missed.
    right = torch.where(counted, torch.nn.functional.logsigmoid(each), 0.0)
    missed = torch.where(counted, torch.nn.functional.logsigmoid(-each), -torch.inf)
    return right.sum(1) - (missed + right.cumsum(1) - right).logsumexp(1)
