"""Rows of words that both families have: quantize.py, dummy weights, trtllm-build, questions."""

from __future__ import annotations

from kit.examples.dialects.settings import (
    DTYPES,
    DUMMY,
    FP8,
    FP8_CACHE,
    IN_FLIGHT,
    INT8_CACHE,
    NEMO,
    NO_PLUGIN,
    PER_CHANNEL,
    PER_TOKEN,
    SHARDED,
    SMOOTHQUANT,
    WEIGHTS,
    said,
)
from kit.examples.words import Words

# What convert_checkpoint.py of both families has in all of its releases.
CONVERT_OPTIONS = (
    Words("--use_weight_only --weight_only_precision {quantization}", when=WEIGHTS),
    Words("--smoothquant {smoothquant_alpha}", when=SMOOTHQUANT),
    Words("--per_token", when=PER_TOKEN),
    Words("--per_channel", when=PER_CHANNEL),
    Words("--int8_kv_cache", when=INT8_CACHE),
    Words("--use_parallel_embedding --embedding_sharding_dim {embedding_dim}", when=SHARDED),
    Words("--use_embedding_sharing", before="0.16.0", when={"share_embedding": (True,)}),
    Words("--workers {processes}", unless=said("processes")),
)

QUANTIZE = (
    # In place of convert_checkpoint.py: it calibrates, and writes the same checkpoint.
    Words("python3 examples/quantization/quantize.py"),
    Words("--model_dir {model}", unless=NEMO),
    Words("--nemo_ckpt_path {nemo} --decoder_type gptnext", when=NEMO),
    Words("--dtype {dtype}"),
    Words("--qformat fp8", when=FP8),
    Words("--qformat int4_awq", when={"quantization": ("int4_awq",)}),
    Words("--kv_cache_dtype {kv_cache_dtype}", when={"kv_cache_dtype": ("int8", "fp8")}),
    Words("--tp_size {tp} --pp_size {pp} --output_dir {checkpoint}"),
)

CONFIGURE = (
    # A checkpoint's configuration without a checkpoint: trtllm-build fills in the weights.
    Words("python3 examples/generate_checkpoint_config.py"),
    Words("--architecture GPTForCausalLM", when={"family": ("gpt",)}),
    Words("--architecture LlamaForCausalLM", when={"family": ("llama",)}),
    Words("--dtype {dtype} --vocab_size {vocab_size} --hidden_size {hidden_size}"),
    Words("--num_hidden_layers {num_hidden_layers} --num_attention_heads {num_attention_heads}"),
    Words("--num_key_value_heads {num_key_value_heads}", unless=said("num_key_value_heads")),
    Words("--intermediate_size {intermediate_size}", unless=said("intermediate_size")),
    Words("--hidden_act {hidden_act}", unless=said("hidden_act")),
    # The default is GPT's.
    Words("--hidden_act silu", when={"family": ("llama",), "hidden_act": (None,)}),
    Words(
        "--max_position_embeddings {max_position_embeddings}",
        unless=said("max_position_embeddings"),
    ),
    Words("--position_embedding_type rope_gpt_neox", when={"family": ("llama",)}),
    Words(
        "--position_embedding_type rope_gpt_neox",
        when={"family": ("gpt",)},
        unless=said("rotary_pct"),
    ),
    Words("--rotary_pct {rotary_pct}", unless=said("rotary_pct")),
    # GPT has biases unless it says that it has none; LLaMA has none unless it says so.
    Words("--bias", when={"family": ("gpt",), "bias": (None, True)}),
    Words("--bias", when={"family": ("llama",), "bias": (True,)}),
    Words("", when={"bias": (False,)}),
    Words("--tp_size {tp} --pp_size {pp}"),
    Words("--use_parallel_embedding --embedding_sharding_dim {embedding_dim}", when=SHARDED),
    Words("--share_embedding_table", before="0.16.0", when={"share_embedding": (True,)}),
    Words("--quant_algo W8A16", when={"quantization": ("int8",)}),
    Words("--quant_algo W4A16", when={"quantization": ("int4",)}),
    Words("--quant_algo FP8", when=FP8),
    Words(
        "--quant_algo {smooth_algorithm} --smoothquant_val {smoothquant_alpha}", when=SMOOTHQUANT
    ),
    Words("", when=PER_TOKEN),
    Words("", when=PER_CHANNEL),
    Words("--kv_cache_quant_algo INT8", when=INT8_CACHE),
    Words("--kv_cache_quant_algo FP8", when=FP8_CACHE),
    Words("--output_path {checkpoint}/config.json"),
)

PACKED = {"packed_input": (None, True)}
_PACKED_SAID = {"packed_input": (True,)}
PADDED = {"packed_input": (False,)}
PAGED = {"paged_kv_cache": (True,)}
CONTIGUOUS = {"paged_kv_cache": (False,)}
FMHA = {"context_fmha": (True,)}
NO_FMHA = {"context_fmha": (False,)}

SHAPES = (
    Words("--max_batch_size {max_batch_size} --max_input_len {max_input_len}"),
    # New tokens became prompt and new tokens together: 0.11.0 takes both and deprecates the first.
    Words("--max_output_len {max_output_len}", before="0.11.0"),
    Words("--max_seq_len {max_seq_len}", since="0.11.0"),
    Words("--output_dir {engine}"),
    Words("--max_beam_width {max_beam_width}", unless=said("max_beam_width")),
    Words("--max_num_tokens {max_num_tokens}", unless=said("max_num_tokens")),
    Words("--tokens_per_block {tokens_per_block}", unless=said("tokens_per_block")),
    Words("--log_level {log_level}", unless=said("log_level")),
)

# What build.py of both families has in all of its releases.
BUILD_PLUGINS = (
    # Off by default before trtllm-build, on by default with it.
    Words("--use_gpt_attention_plugin {dtype}", when={"gpt_attention_plugin": (None,)}),
    Words(
        "--use_gpt_attention_plugin {gpt_attention_plugin}", when={"gpt_attention_plugin": DTYPES}
    ),
    Words("", when=NO_PLUGIN),
    Words("--remove_input_padding", when=PACKED, unless=NO_PLUGIN),
    Words("", when=PADDED),
)
BUILD_OPTIONS = (
    Words("--use_gemm_plugin {gemm_plugin}", when={"gemm_plugin": DTYPES}),
    Words("", when={"gemm_plugin": ("disable",)}),
    Words("--use_weight_only --weight_only_precision {quantization}", when=WEIGHTS),
    Words("--use_smooth_quant", when=SMOOTHQUANT),
    Words("--per_token", when=PER_TOKEN),
    Words("--per_channel", when=PER_CHANNEL),
    Words("--int8_kv_cache", when=INT8_CACHE),
    Words("--fp8_kv_cache", when=FP8_CACHE),
    Words("--paged_kv_cache", when=PAGED),
    Words("", when=CONTIGUOUS),
    Words("--use_inflight_batching", when=IN_FLIGHT),
    Words("--enable_context_fmha", when=FMHA),
    Words("", when=NO_FMHA),
    # One process a rank, or one for all.
    Words("--parallel_build", unless={"workers": (None, 1)}),
    Words("--strongly_typed", when={"strongly_typed": (True,)}),
    Words("", when={"strongly_typed": (False,)}),
    Words("--use_parallel_embedding --embedding_sharding_dim {embedding_dim}", when=SHARDED),
    Words("--timing_cache {timing_cache}", unless=said("timing_cache")),
)
TOGETHER = {"gather_logits": ("all",)}
APART = {"gather_logits": ("context", "generation")}

TRTLLM_BUILD = (
    Words("trtllm-build"),
    Words("--checkpoint_dir {checkpoint}", unless=DUMMY),
    Words("--model_config {checkpoint}/config.json", when=DUMMY),
    # The default is model.cache in the working folder, which is the image's and read-only.
    Words("--timing_cache {cache}/model.cache", before="0.9.0"),
    Words("--output_timing_cache {cache}/model.cache", since="0.9.0"),
    Words("--input_timing_cache {timing_cache}", since="0.9.0", unless=said("timing_cache")),
    # The plugins' types are float16 by default before `auto` came with 0.11.0.
    Words("--gpt_attention_plugin {dtype}", when={"gpt_attention_plugin": (None,)}),
    Words(
        "--gpt_attention_plugin {gpt_attention_plugin}",
        when={"gpt_attention_plugin": (*DTYPES, "disable")},
    ),
    Words("--gpt_attention_plugin auto", since="0.11.0", when={"gpt_attention_plugin": ("auto",)}),
    # What the documents of the family give; GPT's default is none.
    Words("--gemm_plugin {dtype}", when={"gemm_plugin": (None,), "family": ("llama",)}),
    Words("--gemm_plugin {gemm_plugin}", when={"gemm_plugin": (*DTYPES, "disable")}),
    Words("--gemm_plugin auto", since="0.11.0", when={"gemm_plugin": ("auto",)}),
    Words(
        "--lookup_plugin {lookup_plugin}",
        before="0.15.0",
        when={"lookup_plugin": (*DTYPES, "disable")},
    ),
    Words(
        "--lookup_plugin auto", since="0.11.0", before="0.15.0", when={"lookup_plugin": ("auto",)}
    ),
    Words("--nccl_plugin {dtype}", since="0.10.0", before="0.11.0"),
    # On by default while it was an option of the build: wants peer access, and may sum in another
    # order from run to run (TensorRT-LLM#1336).
    Words("--use_custom_all_reduce disable", before="0.12.0"),
    *SHAPES,
    Words("--remove_input_padding enable", when=_PACKED_SAID),
    Words("--remove_input_padding disable", when=PADDED),
    Words("--paged_kv_cache enable", before="0.13.0", when=PAGED),
    Words("--paged_kv_cache disable", before="0.13.0", when=CONTIGUOUS),
    Words("--kv_cache_type paged", since="0.13.0", when=PAGED),
    Words("--kv_cache_type continuous", since="0.13.0", when=CONTIGUOUS),
    Words("--context_fmha enable", when=FMHA),
    Words("--context_fmha disable", when=NO_FMHA),
    # What in-flight batching is made of; it has no option of its own, and these are on by default.
    Words("--remove_input_padding enable", when={**IN_FLIGHT, "packed_input": (None,)}),
    Words(
        "--paged_kv_cache enable", before="0.13.0", when={**IN_FLIGHT, "paged_kv_cache": (None,)}
    ),
    Words("--kv_cache_type paged", since="0.13.0", when={**IN_FLIGHT, "paged_kv_cache": (None,)}),
    # On by default, and all three of the attention plugin.
    Words("--remove_input_padding disable", when={**NO_PLUGIN, "packed_input": (None,)}),
    Words(
        "--paged_kv_cache disable", before="0.13.0", when={**NO_PLUGIN, "paged_kv_cache": (None,)}
    ),
    Words(
        "--kv_cache_type continuous", since="0.13.0", when={**NO_PLUGIN, "paged_kv_cache": (None,)}
    ),
    Words("--context_fmha disable", when={**NO_PLUGIN, "context_fmha": (None,)}),
    Words("--workers {workers}", unless=said("workers")),
    Words("--strongly_typed", before="0.11.0", when={"strongly_typed": (True,)}),
    Words("", before="0.11.0", when={"strongly_typed": (False,)}),
    Words("--gather_all_token_logits", when=TOGETHER),
    Words("--gather_{gather_logits}_logits", when=APART),
    Words(
        "--max_prompt_embedding_table_size {prompt_table_size}", unless=said("prompt_table_size")
    ),
    Words("--lora_plugin {dtype}", unless=said("lora")),
    Words("--lora_dir {lora}", since="0.9.0", unless=said("lora")),
    Words("--lora_target_modules {lora_modules}", since="0.9.0", unless=said("lora_modules")),
    Words("--max_lora_rank {lora_rank}", since="0.9.0", unless=said("lora_rank")),
)

ASK = (
    Words("--engine_dir {engine} --max_output_len {run_output_len}"),
    # One row a prompt: its token ids, the new ones, then the end id up to the longest row. With it
    # run.py of all releases prints no text (its `print_output`), so the text is made from the ids.
    Words("--output_csv {tokens}"),
    # 0.7 has it too, and writes one file whose rows nobody has described.
    Words("--output_logits_npy {logits}", since="0.8.0", unless=said("logits")),
    Words("--end_id {end_id}", since="0.11.0", unless=said("end_id")),
    Words("--num_beams {num_beams}", unless=said("num_beams")),
    # The older run.py of both families answers greedily.
    Words("--temperature {temperature}", since="0.7.0", unless=said("temperature")),
    Words("--top_k {top_k}", since="0.7.0", unless=said("top_k")),
    Words("--top_p {top_p}", since="0.7.0", unless=said("top_p")),
    Words("--random_seed {random_seed}", since="0.11.0", unless=said("random_seed")),
    Words("--input_tokens {input_file}", before="0.7.0", unless=said("input_file")),
    Words("--input_file {input_file}", since="0.7.0", unless=said("input_file")),
    Words("--prompt_table_path {prompt_table}", since="0.7.0", unless=said("prompt_table")),
    Words("--prompt_tasks {prompt_tasks}", since="0.7.0", unless=said("prompt_tasks")),
    Words("--lora_dir {lora} --lora_task_uids {lora_tasks}", since="0.7.0", unless=said("lora")),
)

SUMMARIZE = (
    Words("--engine_dir {engine} --test_trt_llm"),
    Words("--test_hf", when={"hugging_face": (True,)}),
    Words("--batch_size {summary_batch_size}", unless=said("summary_batch_size")),
    Words("--max_ite {max_articles}", unless=said("max_articles")),
    Words("--max_input_length {article_len}", since="0.6.0", unless=said("article_len")),
    Words("--num_beams {summary_beams}", unless=said("summary_beams")),
    Words("--top_k {summary_top_k}", unless=said("summary_top_k")),
    Words("--check_accuracy", unless=said("bounds")),
    Words("--tensorrt_llm_rouge1_threshold {rouge1:g}", unless=said("rouge1")),
    # The score counts as checked too; less than nothing it cannot be.
    Words(
        "--tensorrt_llm_rouge1_threshold 0",
        when={"rouge1": (None,)},
        unless=said("bounds"),
    ),
    Words(
        "--eval_ppl --tensorrt_llm_ppl_threshold {perplexity:g}",
        since="0.8.0",
        unless=said("perplexity"),
    ),
    # Before 0.10.0 it is the cache of the data sets' library (facts of the releases' scripts).
    Words("--dataset_path {dataset}", before="0.10.0"),
    Words("--dataset_dir {dataset}", since="0.10.0"),
    Words("--rouge_dir {rouge_dir}", since="0.11.0", unless=said("rouge_dir")),
)
