"""LLaMA, of Hugging Face or with dummy weights."""

from __future__ import annotations

from kit.examples.dialects import shared
from kit.examples.dialects.settings import (
    DUMMY,
    FP8_CACHE,
    HUGGING_FACE,
    INT8_CACHE,
    QUANTIZED,
    SMOOTHQUANT,
    said,
)
from kit.examples.words import Refusal, Script, Words

_HF_LLAMA_CONVERT = (
    # Only what is calibrated goes this way; build.py reads everything else from the model itself.
    Words("python3 examples/llama/hf_llama_convert.py -i {model} -o {checkpoint}"),
    Words("--tensor-parallelism {tp}"),
    Words("--storage-type fp16", when={"dtype": ("float16",)}),
    Words("--storage-type fp32", when={"dtype": ("float32",)}),
    Words("--smoothquant {smoothquant_alpha}", when=SMOOTHQUANT),
    Words("--calibrate-kv-cache", when=INT8_CACHE),
    Words("--processes {processes}", unless=said("processes")),
)

_CONVERT = (
    Words("python3 examples/llama/convert_checkpoint.py", before="0.19.0"),
    Words("python3 examples/models/core/llama/convert_checkpoint.py", since="0.19.0"),
    Words("--model_dir {model} --dtype {dtype} --tp_size {tp} --pp_size {pp}"),
    Words("--output_dir {checkpoint}"),
    *shared.CONVERT_OPTIONS,
    # Not there from 0.9.0 to 0.11.0.
    Words("--fp8_kv_cache", before="0.9.0", when=FP8_CACHE),
    Words("--fp8_kv_cache", since="0.12.0", when=FP8_CACHE),
    # Of the converter in 0.8.0, of the build from then on.
    Words("--hf_lora_dir {lora}", before="0.9.0", unless=said("lora")),
    Words("--lora_target_modules {lora_modules}", before="0.9.0", unless=said("lora_modules")),
    Words("--max_lora_rank {lora_rank}", before="0.9.0", unless=said("lora_rank")),
)

_DUMMY = (
    Words("--vocab_size {vocab_size} --n_layer {num_hidden_layers}", when=DUMMY),
    Words("--n_embd {hidden_size} --n_head {num_attention_heads}", when=DUMMY),
    Words("--n_kv_head {num_key_value_heads}", unless=said("num_key_value_heads")),
    Words("--inter_size {intermediate_size}", unless=said("intermediate_size")),
    Words("--n_positions {max_position_embeddings}", unless=said("max_position_embeddings")),
    Words("--hidden_act {hidden_act}", unless=said("hidden_act")),
    Words("", when={"bias": (False,)}),
)

_BUILD = (
    Words("python3 examples/llama/build.py"),
    Words("--model_dir {model}", unless={**SMOOTHQUANT, **INT8_CACHE, **DUMMY}),
    Words("--ft_model_dir {checkpoint}/{tp}-gpu", when=SMOOTHQUANT),
    Words("--ft_model_dir {checkpoint}/{tp}-gpu", when=INT8_CACHE, unless=SMOOTHQUANT),
    *_DUMMY,
    Words("--dtype {dtype} --world_size {ranks} --tp_size {tp} --pp_size {pp}"),
    *shared.BUILD_PLUGINS,
    # 0.5.0 refuses bfloat16 without it.
    Words("--use_gemm_plugin {dtype}", when={"gemm_plugin": (None,)}),
    *shared.SHAPES,
    *shared.BUILD_OPTIONS,
    Words("--gather_all_token_logits", since="0.6.0", when=shared.TOGETHER),
    Words(
        "--max_prompt_embedding_table_size {prompt_table_size}",
        since="0.6.0",
        unless=said("prompt_table_size"),
    ),
    Words("--use_lora_plugin {dtype} --hf_lora_dir {lora}", since="0.7.0", unless=said("lora")),
)

_RUN = (
    Words("python3 examples/llama/run.py --tokenizer_dir {model}", before="0.7.0"),
    Words("python3 examples/run.py --tokenizer_dir {model}", since="0.7.0"),
    *shared.ASK,
    Words(
        "--prompt_table {prompt_table}",
        since="0.6.0",
        before="0.7.0",
        unless=said("prompt_table"),
    ),
    Words("--tasks {prompt_tasks}", since="0.6.0", before="0.7.0", unless=said("prompt_tasks")),
)

_SUMMARIZE = (
    Words("python3 examples/llama/summarize.py --hf_model_location {model}", before="0.6.0"),
    Words("python3 examples/summarize.py --hf_model_dir {model}", since="0.6.0"),
    *shared.SUMMARIZE,
    Words("--output_len {summary_len}", since="0.6.0", unless=said("summary_len")),
)

SCRIPTS = (
    Script("convert", _HF_LLAMA_CONVERT, before="0.8.0", when={**HUGGING_FACE, **SMOOTHQUANT}),
    Script(
        "convert",
        _HF_LLAMA_CONVERT,
        before="0.8.0",
        when={**HUGGING_FACE, **INT8_CACHE},
        unless=SMOOTHQUANT,
    ),
    Script("convert", _CONVERT, since="0.8.0", unless={**DUMMY, **QUANTIZED}),
    Script("quantize", shared.QUANTIZE, since="0.8.0", when=QUANTIZED, unless=DUMMY),
    Script("configure", shared.CONFIGURE, since="0.9.0", when=DUMMY),
    Script("build", _BUILD, before="0.8.0"),
    Script("build", shared.TRTLLM_BUILD, since="0.8.0"),
    Script("run", _RUN),
    Script("summarize", _SUMMARIZE, when={"evaluate": (True,)}),
)

_NO_SCALES = (
    "build.py of release {release} makes {quantization} from scales that the kit has no step to "
    "measure"
)
_ALONE = "release {release} makes fp8 keys and values together with quantization: fp8 only"
_CALIBRATED = "hf_llama_convert.py of release {release}, which calibrates, "
_SPLITS = _CALIBRATED + "splits by tensor parallel ranks only, the example wants pp > 1"
_WRITES = _CALIBRATED + "writes float16 and float32 only"
_BLOCKS = "build.py of release {release} takes tokens_per_block that are a power of 2"
_LARGE_BLOCKS = "build.py of release {release} takes tokens_per_block of 128 or more with FMHA"
_OLD_FMHA = "build.py of release {release} takes max_num_tokens together with context_fmha only"

REFUSALS = (
    Refusal(_NO_SCALES, before="0.8.0", when=QUANTIZED),
    Refusal(
        _ALONE,
        since="0.9.0",
        before="0.12.0",
        when=FP8_CACHE,
        unless={**QUANTIZED, **DUMMY},
    ),
    Refusal(
        "release {release} has no step that makes dummy weights for LLaMA: build.py is gone, and "
        "generate_checkpoint_config.py is not there yet",
        since="0.8.0",
        before="0.9.0",
        when=DUMMY,
    ),
    Refusal(
        "build.py of release {release} takes the scales of its converter for quantization: "
        "smoothquant, which dummy weights do not have",
        before="0.8.0",
        when={**DUMMY, **SMOOTHQUANT},
    ),
    Refusal(
        "build.py of release {release} takes the scales of its converter for kv_cache_dtype: "
        "int8, which dummy weights do not have",
        before="0.8.0",
        when={**DUMMY, **INT8_CACHE},
    ),
    Refusal(
        "build.py of release {release} refuses to go without the attention plugin",
        before="0.6.0",
        when={"gpt_attention_plugin": ("disable",)},
    ),
    Refusal(
        "build.py of release {release} refuses bfloat16 without the GEMM plugin",
        before="0.6.0",
        when={"dtype": ("bfloat16",), "gemm_plugin": ("disable",)},
    ),
    Refusal(_SPLITS, before="0.8.0", when=SMOOTHQUANT, unless={"pp": (1,)}),
    Refusal(_SPLITS, before="0.8.0", when=INT8_CACHE, unless={"pp": (1,)}),
    Refusal(_WRITES, before="0.8.0", when={**SMOOTHQUANT, "dtype": ("bfloat16",)}),
    Refusal(_WRITES, before="0.8.0", when={**INT8_CACHE, "dtype": ("bfloat16",)}),
    Refusal(_BLOCKS, since="0.7.0", before="0.8.0", when={"blocks": ("odd",)}),
    Refusal(
        _LARGE_BLOCKS,
        since="0.7.0",
        before="0.8.0",
        when={"blocks": ("small",), "context_fmha": (True,)},
    ),
    Refusal(
        _OLD_FMHA,
        before="0.8.0",
        unless={"max_num_tokens": (None,), "context_fmha": (True,)},
    ),
)
