"""Small loaded models that many rooms share, as fixtures. They are read, never changed."""

from pathlib import Path

import pytest
import torch
from tiny_models import make_tiny_llava, make_tiny_llava_next
from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

from calibrate.models.loading import LoadedModel, load_model

torch.set_num_threads(1)  # on matrices this small, threads mostly wait for each other


@pytest.fixture(scope="session")
def llava_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA-1.5 with grouped queries; no two axes of one size."""
    return make_tiny_llava(tmp_path_factory.mktemp("llava"), layers=4, query_heads=6, kv_heads=2)


@pytest.fixture(scope="session")
def next_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA-1.6; pictures of several shapes get different numbers of tokens."""
    return make_tiny_llava_next(tmp_path_factory.mktemp("next"), layers=3, query_heads=5)


@pytest.fixture(scope="session")
def llava(llava_path: Path) -> LoadedModel:
    return load_model(str(llava_path), "float32", "cpu")


@pytest.fixture(scope="session")
def llava_next(next_path: Path) -> LoadedModel:
    return load_model(str(next_path), "float32", "cpu")


@pytest.fixture(scope="session")
def vip_llava(llava: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """ViP-LLaVA with the decoder geometry and the processor of `llava`."""
    torch.manual_seed(0)
    config = llava.model.config
    vip = VipLlavaForConditionalGeneration(
        VipLlavaConfig(
            vision_config=config.vision_config,
            text_config=config.text_config,
            image_token_index=config.image_token_id,
            vision_feature_layers=[-2, 1],
        )
    )
    for weight in vip.parameters():
        weight.data *= 5 if weight.ndim > 1 else 1  # attention would be flat, and all heads alike
    path = tmp_path_factory.mktemp("vip")
    vip.save_pretrained(path)
    llava.processor.save_pretrained(path)
    return load_model(str(path), "float32", "cpu")


@pytest.fixture(scope="session", params=["llava", "llava_next", "vip_llava"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    """Each kind in turn."""
    return request.getfixturevalue(request.param)
