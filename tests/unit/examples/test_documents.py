"""The commands of the GPT document come out of the catalogue.

The words are those of examples/gpt/README.md of NVIDIA/TensorRT-LLM at the tag v0.5.0 (ffd5af34; the
branch release/0.5.0 has the same text at 6b32b407): 35 commands, none of them changed. Beside them
stand those of 0.7.0 (59f41c06, up to its section on LoRA) that differ: it runs and evaluates with
the scripts that all families share, and has two old names of options there.

Compared is what the release's parser makes of both lines, so that aliases, order, `--a=b` and a
default that one of them spells out are the same; paths are not compared, as they are the user's.
"""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from kit.examples import plan, recipe
from tests.unit.examples.test_dialect import parser_of

if TYPE_CHECKING:
    from kit.examples.plan import Step

BUILD = "python3 build.py"
EMBEDDING = (
    f"{BUILD} --model_dir=./c-model/gpt2/2-gpu --dtype float16 --world_size=2 "
    "--remove_input_padding --use_gpt_attention_plugin float16 --parallel_build "
    "--max_input_len 1000 --use_parallel_embedding"
)
OUTPUT = "--output_dir=trt_engine/gpt2/float16/2-gpu"
SRUN = (
    "srun --mpi=pmix --container-image <image> --container-mounts <path>:<path> "
    "--container-workdir <path> --output logs/tensorrt_llm_%t.out "
    "--error logs/tensorrt_llm_%t.error python3 -u"
)
JOB = ("--nodes=2", "--ntasks-per-node=8")
"""What the batch script around `srun` asks Slurm for."""


def coder(name: str) -> list[tuple[str, ...]]:
    """The commands of a coder; both have the same."""
    example, asked = f"{name}-tp4", '--input_text "def print_hello_world():" --max_output_len 20'
    run = f"--engine_dir {name}_outputs_tp4"
    return [
        (
            example, "convert",
            (f"python3 hf_gpt_convert.py -p 8 --model {name} -i ./{name} -o ./c-model/{name} "
            "--tensor-parallelism 4 --storage-type float16"),
        ),
        (
            example, "build",
            (f"{BUILD} --model_dir ./c-model/{name}/4-gpu --remove_input_padding "
            "--use_gpt_attention_plugin --enable_context_fmha --use_gemm_plugin --parallel_build "
            f"--output_dir {name}_outputs_tp4 --world_size 4"),
        ),
        (
            example, "run",
            f"mpirun -np 4 python3 run.py {run} --tokenizer ./{name} {asked}",
            f"mpirun -np 4 python3 ../run.py {run} --tokenizer_dir ./{name} {asked} --no_add_special_tokens",
        ),
    ]  # fmt: skip


# Example, step, what 0.5.0 says, and 0.7.0 where it says something else.
COMMANDS: list[tuple[str, ...]] = [
    ("gpt2-medium", "convert", "python3 hf_gpt_convert.py -i gpt2 -o ./c-model/gpt2 --tensor-parallelism 1 --storage-type float16"),
    ("gpt2-medium", "build", f"{BUILD} --model_dir=./c-model/gpt2/1-gpu --use_gpt_attention_plugin --remove_input_padding"),
    ("gpt-175b-dummy", "build", f"{BUILD} --world_size=8 --log_level=verbose --n_layer=96 --n_embd=12288 --n_head=96 --max_batch_size=256 --dtype float16 --remove_input_padding --use_gpt_attention_plugin --enable_context_fmha --use_gemm_plugin --output_dir=gpt_175b 2>&1 | tee build.log"),
    ("gpt-530b-dummy", "build", f"{BUILD} --world_size=16 --log_level=info --n_layer=105 --n_embd=20480 --n_head=128 --max_batch_size=128 --max_input_len=128 --max_output_len=20 --dtype float16 --remove_input_padding --use_gpt_attention_plugin --enable_context_fmha --use_gemm_plugin --output_dir=gpt_530b 2>&1 | tee build.log"),
    ("gpt2-medium", "run", "python3 run.py --max_output_len=8", "python3 ../run.py --max_output_len=8 --no_add_special_tokens"),
    ("gpt-175b-dummy", "run", "mpirun -np 8 python3 run.py --max_output_len=8 --engine_dir=gpt_175b", "mpirun -np 8 python3 ../run.py --max_output_len=8 --engine_dir=gpt_175b --no_add_special_tokens"),
    ("gpt-530b-dummy", "run", f"{SRUN} run.py --max_output_len=8 --engine_dir <engine_dir>", f"{SRUN} ../run.py --max_output_len=8 --engine_dir <engine_dir> --no_add_special_tokens"),
    *coder("santacoder"),
    *coder("starcoder"),
    ("gpt2-summarize", "convert", "python3 hf_gpt_convert.py -i gpt2 -o ./c-model/gpt2/fp16 --tensor-parallelism 1 --storage-type float16"),
    ("gpt2-summarize", "build", f"{BUILD} --model_dir=./c-model/gpt2/fp16/1-gpu --remove_input_padding --use_gpt_attention_plugin --enable_context_fmha --use_gemm_plugin --max_batch_size 8 --max_input_len 924 --max_output_len 100 --output_dir trt_engine/gpt2/fp16/1-gpu/ --hidden_act gelu"),
    ("gpt2-summarize", "summarize", "python3 summarize.py --engine_dir trt_engine/gpt2/fp16/1-gpu --test_hf --batch_size 1 --test_trt_llm --hf_model_location=gpt2 --check_accuracy --tensorrt_llm_rouge1_threshold=14", "python3 ../summarize.py --engine_dir trt_engine/gpt2/fp16/1-gpu --hf_model_dir gpt2 --test_trt_llm --test_hf --batch_size 1 --check_accuracy --tensorrt_llm_rouge1_threshold=14 --no_add_special_tokens"),
    ("gpt2-smoothquant", "convert", "python3 hf_gpt_convert.py -i gpt2 -o ./c-model/gpt2-smooth --smoothquant 0.5 -t float16"),
    ("gpt2-smoothquant", "build", f"{BUILD} --model_dir=./c-model/gpt2-smooth/1-gpu --use_gpt_attention_plugin --use_smooth_quant"),
    ("gpt2-smoothquant-per-token", "build", f"{BUILD} --model_dir=./c-model/gpt2-smooth/1-gpu --use_gpt_attention_plugin --use_smooth_quant --per_token --per_channel"),
    ("gpt2-int8-kv-cache", "convert", "python3 hf_gpt_convert.py -i gpt2 -o ./c-model/gpt2 --calibrate-kv-cache -t float16"),
    ("gpt2-int8-kv-cache", "build", f"{BUILD} --model_dir=./c-model/gpt2/1-gpu --int8_kv_cache --remove_input_padding --use_gpt_attention_plugin float16"),
    ("gpt2-int8-kv-cache-no-plugin", "build", f"{BUILD} --model_dir=./c-model/gpt2/1-gpu --int8_kv_cache"),
    ("gpt-next-2b", "convert", "python3 nemo_ckpt_convert.py -i GPT-2B-001_bf16_tp1.nemo -o ./c-model/gpt-next-2B --tensor-parallelism 1 --storage-type bfloat16"),
    ("gpt-next-2b", "build", f"{BUILD} --model_dir=./c-model/gpt-next-2B/1-gpu --dtype bfloat16 --remove_input_padding --use_gpt_attention_plugin"),
    ("gpt-next-2b-dummy", "build", f"{BUILD} --vocab_size=256000 --n_layer=24 --n_embd=2048 --n_head=16 --max_batch_size=256 --dtype float16 --no_bias --hidden_act swiglu --rotary_pct 0.5 --remove_input_padding --use_gpt_attention_plugin --use_gemm_plugin --output_dir=gpt-next-2B"),
    ("gpt-next-2b", "run", "python3 run.py --max_output_len=8 --vocab_file=./c-model/gpt-next-2B/1-gpu/tokenizer.model", "python3 ../run.py --max_output_len=8 --vocab_file=./c-model/gpt-next-2B/1-gpu/tokenizer.model --no_add_special_tokens"),
    ("gpt-next-8b-prompt-tuning", "build", f"{BUILD} --model_dir=./c-model/gpt-next-8B/1-gpu --remove_input_padding --use_gpt_attention_plugin --max_prompt_embedding_table_size 100"),
    ("gpt-next-8b-prompt-tuning", "prompts", "python3 nemo_prompt_convert.py -i email_composition.nemo -o email_composition.npy"),
    ("gpt-next-8b-prompt-tuning", "run", "python3 run.py --input_tokens input.csv --prompt_table email_composition.npy --tasks 0 --max_output_len=8 --vocab_file=./c-model/gpt-next-8B/1-gpu/tokenizer.model", "python3 ../run.py --input_file input.csv --prompt_table email_composition.npy --tasks 0 --max_output_len=8 --vocab_file=./c-model/gpt-next-8B/1-gpu/tokenizer.model --no_add_special_tokens"),
    ("gpt2-embedding-hidden", "build", f"{EMBEDDING} --embedding_sharding_dim 1 {OUTPUT}"),
    ("gpt2-embedding-vocabulary-lookup", "build", f"{EMBEDDING} --embedding_sharding_dim 0 --use_lookup_plugin float16 {OUTPUT}"),
    ("gpt2-embedding-vocabulary", "build", f"{EMBEDDING} --embedding_sharding_dim 0 {OUTPUT}"),
    ("gpt2-embedding-sharing", "convert", "python3 hf_gpt_convert.py -i gpt2 -o ./c-model/gpt2 --tensor-parallelism 2 --storage-type bfloat16"),
    ("gpt2-embedding-sharing", "build", f"{BUILD} --model_dir=./c-model/gpt2/2-gpu --dtype bfloat16 --world_size=2 --remove_input_padding --use_gpt_attention_plugin --use_gemm_plugin --parallel_build --max_input_len 1000 --use_parallel_embedding --embedding_sharding_dim 0 --use_lookup_plugin --use_embedding_sharing --output_dir=trt_engine/gpt2/bfloat16/2-gpu"),
    ("gpt2-embedding-sharing", "summarize", "mpirun -np 2 python3 summarize.py --engine_dir trt_engine/gpt2/bfloat16/2-gpu --batch_size 10 --test_trt_llm --check_accuracy --tensorrt_llm_rouge1_threshold=14 --dataset_path ./dataset", "mpirun -np 2 python3 ../summarize.py --engine_dir trt_engine/gpt2/bfloat16/2-gpu --hf_model_dir gpt2 --batch_size 10 --test_trt_llm --check_accuracy --tensorrt_llm_rouge1_threshold=14 --dataset_path ./dataset --no_add_special_tokens"),
]  # fmt: skip

# The document of 0.7.0 has the names of older releases there; its run.py has these.
AT_0_7_0 = {"--prompt_table": "--prompt_table_path", "--tasks": "--prompt_tasks"}
PATHS = {
    *("in_file", "out_dir", "out_file", "model_dir", "output_dir", "engine_dir", "output_csv"),
    *("tokenizer_path", "tokenizer_dir", "vocab_file", "hf_model_dir", "hf_model_location"),
    *("prompt_table", "prompt_table_path", "input_tokens", "input_file", "dataset_path"),
}


def meaning(words: list[str], release: str) -> tuple[str, int, dict[str, Any]]:
    """Script, ranks, and every option that is no path, as the release's parser has them."""
    ranks = 1
    if words[0] == "mpirun":
        ranks = int(words[2])
    elif words[0] == "srun":
        ranks = math.prod(int(word.partition("=")[2]) for word in JOB)
    words = words[words.index("python3") + 1 :]
    words = words[1:] if words[0] == "-u" else words
    words = words[: words.index("2>&1")] if "2>&1" in words else words
    folder = "examples" if words[0].startswith("../") else "examples/gpt"
    script = words[0] if words[0].startswith("examples/") else f"{folder}/{words[0].strip('./')}"
    found = vars(parser_of(script, release).parse_args(words[1:]))
    for name in found:
        # A plugin without a type computes in the model's (examples/gpt/build.py).
        if name.endswith("_plugin") and found[name] is None:
            found[name] = found["dtype"]
    return script, ranks, {name: value for name, value in found.items() if name not in PATHS}


def find_step(name: str, step: str, release: str) -> Step:
    steps = plan.plan(recipe.find(name), release).steps
    return next(item for item in steps if item.name == step)


def test_the_document_has_thirty_five() -> None:
    assert len(COMMANDS) == 35


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: "-".join(row[:2]))
def test_word_for_word(row: tuple[str, ...]) -> None:
    name, step, text, *_ = row
    planned = list(find_step(name, step, "0.5.0").argv)
    assert meaning(planned, "0.5.0") == meaning(shlex.split(text), "0.5.0")


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: "-".join(row[:2]))
def test_what_became_of_them_in_0_7_0(row: tuple[str, ...]) -> None:
    name, step, *texts = row
    words = [AT_0_7_0.get(word, word) for word in shlex.split(texts[-1])]
    planned = list(find_step(name, step, "0.7.0").argv)
    assert meaning(planned, "0.7.0") == meaning(words, "0.7.0")


def test_sixteen_ranks_are_shared_by_two_nodes() -> None:
    step = find_step("gpt-530b-dummy", "run", "0.5.0").to_dict()
    assert (step["nodes"], step["ranks_per_node"], step["mpi_ranks"]) == (2, 8, 16)
    assert step["env"]["OMPI_MCA_btl"] == "self,vader,tcp"
