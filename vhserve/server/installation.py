"""Whether vLLM is installed, without importing it. Does not know which build."""

from importlib.util import find_spec

from vhserve.errors import VllmMissing


def check_vllm() -> None:
    """Refuse to serve where there is no vLLM.

    Raises
    ------
    VllmMissing
    """
    if find_spec("vllm") is None:
        raise VllmMissing(
            "vLLM is not installed",
            expected="vLLM 0.32",
            fix="install vhserve[cuda], or vhserve[cpu] without a GPU",
        )
