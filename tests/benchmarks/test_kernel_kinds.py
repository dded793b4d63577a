"""The profile's kinds: names of kernels and operations that are known, and what no pattern knows."""

import pytest

from benchmarks import kernel_kinds
from benchmarks.kernel_kinds import ATTENTION, CACHE, FUSED, GEMM, KINDS, MOVING, OTHER, STEP, kind_of

NAMES = {
    GEMM: [
        "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT",
        "nvjet_hsh_64x8_64x16_1x4_h_bz_splitK_TNT",
        "void cublasLt::splitKreduce_kernel<32, 16, int, __nv_bfloat16>(cublasLt::cublasSplitKParams)",
        "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn_align8>(Params)",
        "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>>>",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off",
        "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn",
        "void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, float, 128>(cublasGemvParams)",
        "triton_tem_fused_mm_t_3",
        "sm80_xmma_fprop_implicit_gemm_bf16f32_tensor_nhwc_cudnn",
        "aten::mm",
        "aten::addmm",
        "aten::linear",
        "aten::bmm",
        "aten::mkldnn_convolution",
        "_C::onednn_mm",
    ],
    ATTENTION: [
        "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90<2>>>>",
        "void cutlass::device_kernel<flash::FlashAttnFwdCombine<cute::tuple<cute::C<8>>>>(Params)",
        "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4>, false>(Flash_fwd_params)",
        "void flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<128>>(Flash_fwd_params)",
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>(pytorch_flash::Flash_fwd_params)",
        "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel::Params)",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x64x128_4x1x1_kernel0_0",
        "kernel_unified_attention",
        "kernel_unified_attention_2d",
        "reduce_segments",
        "merge_attn_states_kernel",
        "_C::cpu_attention_with_kv_cache",
        "vllm::unified_attention_with_output",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
    ],
    CACHE: [
        "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16>(long const*)",
        "reshape_and_cache_kernel_flash",
        "_reshape_cache_per_token_head",
        "_C::cpu_attn_reshape_and_cache",
        "vllm::unified_kv_cache_update",
        "_write_kv_parts",
        "vhserve::write_kv_parts",
    ],
    FUSED: [
        "triton_red_fused_add_mean_mul_pow_rsqrt_0",
        "triton_poi_fused_mul_silu_slice_1",
        "void vllm::rms_norm_kernel<c10::BFloat16, 8>(c10::BFloat16*)",
        "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>",
        "void vllm::rotary_embedding_kernel<c10::BFloat16, true>",
        "void vllm::act_and_mul_kernel<c10::BFloat16, &vllm::silu_kernel<c10::BFloat16>, true>",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>",
        "_C::rms_norm",
        "_C::fused_add_rms_norm",
        "_C::silu_and_mul",
        "_C::rotary_embedding",
        "aten::add",
        "aten::mul_",
        "aten::gelu",
        "aten::native_layer_norm",
        "_C::static_scaled_fp8_quant",
        "aten::_softmax",
    ],
    MOVING: [
        "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<c10::BFloat16>>",
        "void at::native::elementwise_kernel<128, 4, at::native::(anonymous namespace)::masked_fill_kernel(float)>",
        "void at::native::indexSelectLargeIndex<c10::BFloat16, long, unsigned int, 2, 2, -2, true>",
        "void at::native::index_elementwise_kernel<128, 4, gpu_index_kernel<at::native::index_copy_kernel_impl>>",
        "void at::native::vectorized_gather_kernel<16, long>(char*, char*, long*, int, long, long, long, long, bool)",
        "void at::native::_scatter_gather_elementwise_kernel<128, 8>",
        "void at::native::(anonymous namespace)::CatArrayBatchedCopy_vectorized<OpaqueType<2u>>",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)>",
        "triton_poi_fused_index_select_2",
        "Memcpy HtoD (Pinned -> Device)",
        "Memset (Device)",
        "aten::index_select",
        "aten::index_copy_",
        "aten::masked_fill_",
        "aten::index",
        "aten::fill_",
        "aten::copy_",
        "aten::cat",
        "aten::embedding",
    ],
    STEP: [
        "_compute_slot_mappings_kernel",
        "_gather_block_tables_kernel",
        "_compact_tables",
        "_prepare_pos_seq_lens_kernel",
        "_gumbel_sample_kernel",
        "_topk_log_softmax_kernel",
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>",
        "void flash::prepare_varlen_num_blocks_kernel<1, true>(int)",
        "_C::cpu_attn_get_scheduler_metadata",
        "aten::argmax",
    ],
    OTHER: [
        "aten::empty",
        "aten::as_strided",
        "void mine::something_new<float>(float*)",
    ],
}
KNOWN = {name: kind for kind, names in NAMES.items() for name in names}


@pytest.mark.parametrize("name", KNOWN, ids=lambda name: name[:60])
def test_known_names_are_of_their_kind(name: str) -> None:
    assert kind_of(name) == KNOWN[name]


def test_every_pattern_has_a_kind_of_the_table_and_a_name_that_needs_it() -> None:
    assert {kind for kind, _ in kernel_kinds.PATTERNS} == set(KINDS) - {OTHER}
    for number, (kind, pattern) in enumerate(kernel_kinds._COMPILED):
        decided = [name for name in KNOWN if pattern.search(name) and kind_of(name) == kind]
        assert decided, f"pattern {number}, {pattern.pattern}"


def test_kernels_of_vhserve_itself_have_a_kind() -> None:
    from pathlib import Path

    source = Path(kernel_kinds.__file__).parents[1] / "vhserve" / "engine"
    jitted = [
        line.split("(")[0].removeprefix("def ").strip()
        for path in source.rglob("*.py")
        for before, line in zip(path.read_text().splitlines(), path.read_text().splitlines()[1:], strict=False)
        if "triton.jit" in before and line.startswith("def ")
    ]
    assert jitted
    assert {name: kind_of(name) for name in jitted if kind_of(name) == OTHER} == {}
