"""Logits of the first answer token, and the log-odds of a token.

Owns which position they are read at. Does not know samples, or which answer is right.
"""

from typing import Any

import torch
from torch import Tensor

from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import Batch


@torch.inference_mode()
def next_token_logits(loaded: LoadedModel, batch: Batch) -> Tensor:
    """Logits of the first answer token, shape `(batch, vocabulary)`, float32."""
    return answer_logits(
        loaded.model, loaded.model.model(**batch.inputs, use_cache=False).last_hidden_state, batch.last
    )


def answer_logits(model: Any, hidden: Tensor, last: Tensor) -> Tensor:
    """Logits of the first answer token, `(batch, vocabulary)`, float32.

    Parameters
    ----------
    hidden
        What the decoder puts out, `(batch, n, hidden)`.
    last
        Last prompt position of each sample, `(batch,)`.
    """
    logits: Tensor = model.lm_head(hidden[torch.arange(len(hidden), device=hidden.device), last])
    return logits.float()


def log_odds(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p − log(1 − p) of tokens, `(batch, vocabulary)` and `(batch,)` to `(batch,)`."""
    one = logits.gather(1, tokens[:, None])
    others = logits.scatter(1, tokens[:, None], -torch.inf)
    return one[:, 0] - others.logsumexp(1)
