"""GPT: GPT-2, SantaCoder and StarCoder of Hugging Face, GPT-Next of NeMo, dummy weights."""

from __future__ import annotations

from kit.examples.dialects import shared
from kit.examples.dialects.settings import (
    DTYPES,
    DUMMY,
    FP8_CACHE,
    HUGGING_FACE,
    INT8_CACHE,
    NEMO,
    NO_PLUGIN,
    QUANTIZED,
    SMOOTHQUANT,
    said,
)
from kit.examples.words import Refusal, Script, Words

_HF_GPT_CONVERT = (
    # examples/gpt/README.md of each release. The old converter writes `<out>/<tp>-gpu`.
    Words("python3 examples/gpt/hf_gpt_convert.py -i {model} -o {checkpoint}"),
    Words("--tensor-parallelism {tp} --storage-type {dtype}"),
    Words("--model {variant}", when={"variant": ("santacoder", "starcoder")}),
    Words("--smoothquant {smoothquant_alpha}", when=SMOOTHQUANT),
    Words("--calibrate-kv-cache", when=INT8_CACHE),
    Words("--processes {processes}", unless=said("processes")),
)

_NEMO_CONVERT = (
    # It leaves the tokenizer beside the weights.
    Words("python3 examples/gpt/nemo_ckpt_convert.py -i {nemo} -o {checkpoint}"),
    Words("--tensor-parallelism {tp} --storage-type {dtype}"),
    Words("--processes {processes}", unless=said("processes")),
)

_CONVERT = (
    Words("python3 examples/gpt/convert_checkpoint.py", before="0.19.0"),
    # 0.19.0 documents the new place of the families; 0.18.0 still has the old one.
    Words("python3 examples/models/core/gpt/convert_checkpoint.py", since="0.19.0"),
    Words("--model_dir {model}", unless=NEMO),
    Words("--nemo_ckpt_path {nemo}", when=NEMO),
    Words("--dtype {dtype} --tp_size {tp} --pp_size {pp}"),
    # Left out, 0.9.0 looks for `gpt2` in the path of the model's folder.
    Words("--gpt_variant {variant}", unless=NEMO),
    Words("--output_dir {checkpoint}"),
    *shared.CONVERT_OPTIONS,
)

_DUMMY = (
    Words("--vocab_size {vocab_size} --n_layer {num_hidden_layers}", when=DUMMY),
    Words("--n_embd {hidden_size} --n_head {num_attention_heads}", when=DUMMY),
    Words("--inter_size {intermediate_size}", unless=said("intermediate_size")),
    Words("--n_positions {max_position_embeddings}", unless=said("max_position_embeddings")),
    Words("--hidden_act {hidden_act}", unless=said("hidden_act")),
    Words("--rotary_pct {rotary_pct}", unless=said("rotary_pct")),
    Words("--no_bias", when={"bias": (False,)}),
    Words("", when={"bias": (True,)}),
    # One head of keys and values, or as many as of queries.
    Words("--multi_query_mode", when={"multi_query": (True,)}),
)

_BUILD = (
    Words("python3 examples/gpt/build.py"),
    Words("--model_dir {checkpoint}/{tp}-gpu", unless=DUMMY),
    *_DUMMY,
    Words("--dtype {dtype} --world_size {tp}"),
    *shared.BUILD_PLUGINS,
    *shared.SHAPES,
    *shared.BUILD_OPTIONS,
    Words("--use_lookup_plugin {lookup_plugin}", when={"lookup_plugin": DTYPES}),
    Words("", when={"lookup_plugin": ("disable",)}),
    Words("--use_embedding_sharing", when={"share_embedding": (True,)}),
    Words(
        "--max_prompt_embedding_table_size {prompt_table_size}", unless=said("prompt_table_size")
    ),
    Words("--gather_all_token_logits", when=shared.TOGETHER),
    Words("--gather_{gather_logits}_logits", since="0.8.0", when=shared.APART),
)

_PROMPTS = (
    Words("python3 examples/gpt/nemo_prompt_convert.py", before="0.19.0"),
    Words("python3 examples/models/core/gpt/nemo_prompt_convert.py", since="0.19.0"),
    Words("-i {learned_prompts} -o {prompt_table}"),
)

# A NeMo archive brings a SentencePiece model, which the converters leave beside the weights.
_VOCABULARY = (
    Words("--vocab_file {checkpoint}/{tp}-gpu/tokenizer.model", before="0.9.0", when=NEMO),
    Words("--vocab_file {checkpoint}/tokenizer.model", since="0.9.0", when=NEMO),
)

_RUN = (
    Words("python3 examples/gpt/run.py", before="0.7.0"),
    Words("python3 examples/run.py", since="0.7.0"),
    Words("--tokenizer {model}", before="0.7.0", unless=NEMO),
    Words("--tokenizer_dir {model}", since="0.7.0", unless=NEMO),
    *_VOCABULARY,
    # examples/gpt/run.py never adds special tokens; examples/run.py does unless told otherwise.
    Words("--no_add_special_tokens", since="0.7.0"),
    *shared.ASK,
    Words("--prompt_table {prompt_table}", before="0.7.0", unless=said("prompt_table")),
    Words("--tasks {prompt_tasks}", before="0.7.0", unless=said("prompt_tasks")),
)

_SUMMARIZE = (
    Words("python3 examples/gpt/summarize.py", before="0.6.0"),
    Words("python3 examples/summarize.py", since="0.6.0"),
    Words("--hf_model_location {model}", before="0.6.0", unless=NEMO),
    Words("--hf_model_dir {model}", since="0.6.0", unless=NEMO),
    *_VOCABULARY,
    *shared.SUMMARIZE,
    Words("--output_len {summary_len}", unless=said("summary_len")),
    Words("--no_add_special_tokens", since="0.6.0"),
)

SCRIPTS = (
    Script("convert", _HF_GPT_CONVERT, before="0.9.0", when=HUGGING_FACE),
    Script("convert", _NEMO_CONVERT, before="0.9.0", when=NEMO),
    Script("convert", _CONVERT, since="0.9.0", unless={**DUMMY, **QUANTIZED}),
    Script("quantize", shared.QUANTIZE, since="0.9.0", when=QUANTIZED, unless=DUMMY),
    Script("configure", shared.CONFIGURE, since="0.9.0", when=DUMMY),
    Script("build", _BUILD, before="0.9.0"),
    Script("build", shared.TRTLLM_BUILD, since="0.9.0"),
    Script("prompts", _PROMPTS, unless=said("learned_prompts")),
    Script("run", _RUN),
    Script("summarize", _SUMMARIZE, when={"evaluate": (True,)}),
)

_NO_SCALES = (
    "build.py of release {release} makes {quantization} from scales that the kit has no step to "
    "measure"
)
_ALONE = "release {release} makes fp8 keys and values together with quantization: fp8 only"
_BLOCKS = "build.py of release {release} takes tokens_per_block that are a power of 2"
_LARGE_BLOCKS = "build.py of release {release} takes tokens_per_block of 128 or more with FMHA"
_OLD_FMHA = "build.py of release {release} takes max_num_tokens together with context_fmha only"

REFUSALS = (
    Refusal(_NO_SCALES, before="0.9.0", when=QUANTIZED),
    Refusal(_ALONE, since="0.9.0", when=FP8_CACHE, unless={**QUANTIZED, **DUMMY}),
    Refusal(
        "release {release} has tensor parallel only for GPT, the example wants pp > 1",
        before="0.9.0",
        unless={"pp": (1,)},
    ),
    Refusal(
        "build.py of release {release} refuses fp8 keys and values without the attention plugin",
        before="0.9.0",
        when={**FP8_CACHE, **NO_PLUGIN},
    ),
    # examples/gpt/README.md of all releases.
    Refusal(
        "the documents of release {release} want the attention plugin for SmoothQuant of GPT, "
        "which gpt_attention_plugin: disable turns off",
        when={**SMOOTHQUANT, **NO_PLUGIN},
    ),
    Refusal(
        "release {release} has GPT-Next's rotary positions in the attention plugin only, which "
        "gpt_attention_plugin: disable turns off",
        when={"variant": ("gpt-next",), **NO_PLUGIN},
    ),
    Refusal(_BLOCKS, since="0.7.0", before="0.9.0", when={"blocks": ("odd",)}),
    Refusal(
        _LARGE_BLOCKS,
        since="0.7.0",
        before="0.9.0",
        when={"blocks": ("small",), "context_fmha": (True,)},
    ),
    Refusal(
        _OLD_FMHA,
        before="0.8.0",
        unless={"max_num_tokens": (None,), "context_fmha": (True,)},
    ),
    Refusal(
        "nemo_ckpt_convert.py of release {release}, which does not calibrate, has no scales for "
        "quantization: smoothquant",
        before="0.9.0",
        when={**NEMO, **SMOOTHQUANT},
    ),
    Refusal(
        "nemo_ckpt_convert.py of release {release}, which does not calibrate, has no scales for "
        "kv_cache_dtype: int8",
        before="0.9.0",
        when={**NEMO, **INT8_CACHE},
    ),
    # examples/gpt/convert_checkpoint.py calibrates a Hugging Face model, and no other.
    Refusal(
        "convert_checkpoint.py of release {release} calibrates Hugging Face models only, the "
        "example wants quantization: smoothquant of a NeMo one",
        since="0.9.0",
        when={**NEMO, **SMOOTHQUANT},
    ),
    Refusal(
        "convert_checkpoint.py of release {release} calibrates Hugging Face models only, the "
        "example wants kv_cache_dtype: int8 of a NeMo one",
        since="0.9.0",
        when={**NEMO, **INT8_CACHE},
        unless=QUANTIZED,
    ),
    Refusal(
        "quantize.py of release {release} reads no NeMo archive",
        before="0.10.0",
        when={**NEMO, **QUANTIZED},
    ),
    Refusal(
        "build.py of release {release} makes dummy weights with a head of keys and values for "
        "every head of queries, or with one for all",
        before="0.9.0",
        when={"grouped": (True,)},
    ),
)
