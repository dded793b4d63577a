"""Whether an arm's accuracy can show what evicted heads lose.

Such heads change a reply from its second token on: where every reply is one token, its accuracy is that of the unpruned
model. Does not know how replies are obtained or scored.
"""

from vhserve.evaluation.results import Arm


def unseen_heads(arm: Arm, evicted: int) -> str | None:
    """What to say of an arm whose accuracy does not see its evicted heads; None where it does, or has none.

    Parameters
    ----------
    evicted
        How many heads of the served plan lose image blocks when the prompt is computed.
    """
    replies = [answer for answer in arm.answers if answer.reply is not None]
    if not evicted or not replies or any(answer.tokens is None or answer.tokens > 1 for answer in replies):
        return None
    return (
        f"{arm.server.base_url} evicts {evicted} heads, which change replies from their second token on, and each of "
        f"its {len(replies)} replies has one: the accuracy does not see them; give a --dataset, or --families, with "
        "answers of several tokens"
    )
