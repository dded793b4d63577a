"""Hashes of blocks are a plan's: the same request of another plan, or of none, has others."""

import pytest

pytestmark = pytest.mark.vllm

BLOCK = 32


def hashes(salt: str | None, own: str | None = None, tokens: int = 5 * BLOCK + 3) -> list[bytes]:
    """Hashes of the whole blocks of a request, as a connector with that salt has them."""
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    from vhserve.compat.offloading import salt_block_hashes

    init_none_hash(sha256)
    request = Request(
        request_id="one",
        prompt_token_ids=list(range(tokens)),
        sampling_params=SamplingParams(max_tokens=4),
        pooling_params=None,
        cache_salt=own,
        block_hasher=get_request_block_hasher(BLOCK, sha256),
    )
    if salt is not None:
        salt_block_hashes(request, salt)
    for token in range(BLOCK):
        request.append_output_token_ids(token)
    return list(request.block_hashes)


def test_each_salt_has_blocks_of_its_own() -> None:
    every = [hashes(*salts) for salts in ((None,), ("a",), ("b",), ("a", "client"), ("a", "other"), (None, "client"))]
    assert [len(one) for one in every] == [6] * 6  # the reply fills one
    assert len({key for one in every for key in one}) == 6 * 6


def test_one_salt_has_the_same_blocks_again() -> None:
    assert hashes("a") == hashes("a")
    assert hashes("a", "client") == hashes("a", "client")
    assert hashes("a", tokens=3 * BLOCK)[:3] == hashes("a")[:3]


def test_without_salts_any_two_engines_would_share_blocks() -> None:
    assert hashes(None) == hashes(None)
