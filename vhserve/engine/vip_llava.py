"""ViP-LLaVA for vLLM, which has none: its LLaVA, with several layers of the vision tower and a norm in the projector.

Owns what of ViP-LLaVA differs from LLaVA-1.5: `VipLlavaForConditionalGeneration` of transformers computes the same.
Does not know plans.
"""

from typing import Any

import torch
from torch import nn
from transformers import VipLlavaConfig
from vllm.config import VllmConfig
from vllm.model_executor.models.llava import (
    LlavaDummyInputsBuilder,
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaMultiModalProjector,
    LlavaProcessingInfo,
)
from vllm.model_executor.models.utils import maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY


def name_as_llava(config: Any) -> Any:
    """Give a `VipLlavaConfig` the fields that vLLM's LLaVA reads, which it has by another name or always alike."""
    layers: Any = config.vision_feature_layers
    config.vision_feature_layer = [layers] if isinstance(layers, int) else list(layers)
    config.vision_feature_select_strategy = "default"  # the vision tower's first token is always dropped
    config.multimodal_projector_bias = True
    return config


class VipLlavaProcessingInfo(LlavaProcessingInfo):
    """What vLLM asks about prompts and pictures of a model of ViP-LLaVA."""

    def get_hf_config(self) -> Any:
        return name_as_llava(self.ctx.get_hf_config(VipLlavaConfig))


class VipLlavaProjector(LlavaMultiModalProjector):
    """From the outputs of several layers of the vision tower, side by side, to the decoder's width."""

    def __init__(self, config: Any, quant_config: Any, prefix: str) -> None:
        width = len(config.vision_feature_layer) * config.vision_config.hidden_size
        super().__init__(
            vision_hidden_size=width,
            text_hidden_size=config.text_config.hidden_size,
            projector_hidden_act=config.projector_hidden_act,
            multimodal_projector_bias=config.multimodal_projector_bias,
            quant_config=quant_config,
            prefix=prefix,
        )
        self.projector_layernorm = nn.LayerNorm(width, eps=config.projector_layernorm_eps)

    def forward(self, image_features: torch.Tensor) -> torch.Tensor:
        """(images, patches, layers * width of the vision tower) to (images, patches, width of the decoder)."""
        projected: torch.Tensor = super().forward(self.projector_layernorm(image_features))
        return projected


@MULTIMODAL_REGISTRY.register_processor(
    LlavaMultiModalProcessor, info=VipLlavaProcessingInfo, dummy_inputs=LlavaDummyInputsBuilder
)
class VipLlavaForConditionalGeneration(LlavaForConditionalGeneration):
    """ViP-LLaVA (Cai et al., CVPR 2024, arXiv 2312.00784), with any decoder that vLLM has."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        config = name_as_llava(vllm_config.model_config.hf_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        towers = self._tower_model_names
        with self._mark_tower_model(vllm_config, "image"):  # left out as the vision tower is, where no picture may come
            self.multi_modal_projector = VipLlavaProjector(
                config, vllm_config.quant_config, maybe_prefix(prefix, "multi_modal_projector")
            )
        self._tower_model_names = towers

    def _image_pixels_to_features(self, vision_tower: Any, pixel_values: Any) -> torch.Tensor:
        """(images, channels, height, width) to (images, patches, layers * width of the vision tower)."""
        features: torch.Tensor = vision_tower(
            pixel_values,
            select_layers=self.config.vision_feature_layer,
            feature_select_strategy=self.config.vision_feature_select_strategy,
        )
        return features
