"""Which server is at an address: the model that it serves, and the plan that it serves it with.

Owns `/v1/models` and what can be wrong with it. Asks no questions of the model, and does not know how `/metrics` is
read.
"""

import openai

from vhserve.evaluation.address import check_base_url, trusts_environment
from vhserve.evaluation.errors import ModelNotServed, ServerRefused, ServerUnreachable
from vhserve.evaluation.results import Server
from vhserve.evaluation.server_metrics import metrics_text, plan_labels, served_with

_SECONDS = 20.0
"""Until a request for the list of models fails."""


def identify(base_url: str, model: str | None, api_key: str) -> Server:
    """Find the model to ask, and which plan serves it.

    Parameters
    ----------
    base_url
        Address of the OpenAI endpoint, with its `/v1`.
    model
        Served model's name; `None` takes the only one.
    api_key
        Sent as bearer token.

    Raises
    ------
    BaseUrlInvalid, ServerUnreachable, ServerRefused, ModelNotServed
    """
    base_url = check_base_url(base_url)
    with openai.DefaultHttpxClient(trust_env=trusts_environment(base_url)) as http:
        client = openai.OpenAI(base_url=base_url, api_key=api_key, timeout=_SECONDS, max_retries=0, http_client=http)
        try:
            parents = {entry.id: str(getattr(entry, "parent", None) or "") for entry in client.models.list()}
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ServerRefused(
                f"{base_url} refuses the API key (status {error.status_code})",
                expected="a key that the server accepts",
                fix="put it in the environment variable that --api-key-env names",
            ) from error
        except openai.APIStatusError as error:
            raise _unreachable(base_url, f"answers {error.status_code} to /models") from error
        except (openai.APIError, ValueError, AttributeError, TypeError) as error:  # the rest: what is no OpenAI list
            raise _unreachable(base_url, f"gives no list of models ({_reason(error)})") from error
    served = list(parents)
    if model is None and len(served) != 1:
        raise _not_served(base_url, "no model is named", served)
    if model is not None and model not in served:
        raise _not_served(base_url, f"model {model!r} is not served", served)
    text = metrics_text(base_url)
    labels, (block_size, dtype) = plan_labels(text), served_with(text)
    return Server(
        base_url=base_url,
        model=model or served[0],
        adapter_of=parents[model or served[0]] or None,
        plan_digest=labels.get("digest"),
        plan_model=labels.get("model"),
        plan_revision=labels.get("revision"),
        block_size=block_size,
        dtype=dtype,
    )


def _reason(error: Exception) -> str:
    return str(error.__cause__ or error) or type(error).__name__


def _unreachable(base_url: str, how: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"{base_url} {how}",
        expected="an OpenAI-compatible server, such as vhserve serve",
        fix="start it, or correct the address (it ends in /v1)",
    )


def _not_served(base_url: str, wrong: str, served: list[str]) -> ModelNotServed:
    return ModelNotServed(
        f"{wrong} at {base_url}",
        expected=f"one of {', '.join(served) or '(it serves none)'}",
        fix="name it with --model",
    )
