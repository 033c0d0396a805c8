"""Verdicts on commands as they stand in documentation, scripts and shells."""

from __future__ import annotations

import pytest

from kit import data
from kit.commandlines.check import NOTHING, check


def verdict(release: str, text: str, **options) -> str:
    return check(text, release, **options).verdict


def only(release: str, text: str):
    [answer] = check(text, release).commands
    return answer


@pytest.mark.parametrize(
    ("release", "text"),
    [
        ("0.5.0", "python3 examples/gpt/hf_gpt_convert.py -i gpt2 -o ./c-model/gpt2 -tp 1 -t float16"),
        ("0.5.0", "cd examples/gpt && python3 build.py --model_dir=./c --use_gpt_attention_plugin"),
        ("0.5.0", "cd examples/gpt; python3 run.py --max_output_len=8"),
        ("0.6.1", "python3 examples/summarize.py --hf_model_dir x --test_trt_llm"),
        ("0.7.1", "python examples/llama/build.py --model_dir m --world_size 4 --tp_size 2 --pp_size 2"),
        ("0.7.0", "python3 ../run.py --max_output_len 8 --prompt_table p.npy"),
        ("0.8.0", "trtllm-build --checkpoint_dir c --gemm_plugin float16 --remove_input_padding enable"),
        ("0.9.0", "python convert_checkpoint.py --model_dir meta --output_dir o --dtype float16"),
        ("0.10.0", "python ../quantization/quantize.py --model_dir <hf> --qformat fp8 --output_dir $OUT"),
        ("0.12.0", "mpirun -n 8 --allow-run-as-root python3 examples/mmlu.py --test_trt_llm"),
        ("0.13.0", "trtllm-build --checkpoint_dir c --kv_cache_type paged --use_fused_mlp enable"),
        ("0.16.0", "trtllm-bench -m meta-llama/x throughput --engine_dir e --dataset d"),
        ("0.16.0", "trtllm-serve ./engine --tokenizer t --port 8001"),
        ("0.16.0", "srun -N 2 --mpi=pmix trtllm-build --checkpoint_dir c --workers 8"),
        ("0.16.0", "python3 scripts/build_wheel.py --clean -a '80-real;90-real' -D 'X=1' -D Y=2"),
        ("0.16.0", "docker run -it img bash -c 'cd examples/gpt && python3 ../run.py --max_output_len 8'"),
        ("0.16.0", "python -m tensorrt_llm.commands.build --checkpoint_dir c"),
        ("0.16.0", "python .\\examples\\run.py --max_output_len 8 --engine_dir .\\engine"),
        ("0.16.0", "python3 examples/qwen/convert_checkpoint.py --model_dir m --output_dir o"),
        ("0.18.0", "python3 scripts/build_wheel.py --clean -j 8"),
        ("0.19.0", "python examples/models/core/llama/convert_checkpoint.py --model_dir m"),
        ("1.2.1", "trtllm-build --checkpoint_dir c --max_seq_len 4096 --gemm_plugin nvfp4"),
    ],
)  # fmt: skip
def test_accepted(release: str, text: str) -> None:
    assert verdict(release, text) == "accepted"


@pytest.mark.parametrize(
    ("release", "text", "says"),
    [
        ("0.12.0", "trtllm-build --max_output_len 5 --checkpoint_dir x",
         "--max_output_len was removed in 0.12.0: use --max_seq_len = input + output"),
        ("0.17.0", "trtllm-build --max_output_len 5 --checkpoint_dir x", "removed in 0.12.0"),
        ("0.10.0", "trtllm-build --max_seq_len 5 --checkpoint_dir x", "it comes with 0.11.0"),
        ("0.5.0", "trtllm-build --checkpoint_dir x", "it comes with 0.7.0"),
        ("0.16.0", "python examples/gpt/build.py --model_dir x",
         "gone since 0.9.0: use examples/gpt/convert_checkpoint.py and trtllm-build"),
        ("0.9.0", "cd examples/llama\npython build.py", "examples/llama/build.py is gone since 0.8.0"),
        ("0.9.0", "python examples/opt/build.py", "use examples/opt/convert_checkpoint.py and trtllm-build"),
        ("0.8.0", "cd examples/gpt && python run.py", "use examples/run.py"),
        ("0.13.0", "trtllm-build --checkpoint_dir x --use_fused_mlp", "(since 0.13.0)"),
        ("0.16.0", "trtllm-build --checkpoint_dir x --gemm_plugn auto", "did you mean --gemm_plugin?"),
        ("0.16.0", "trtllm-build --checkpoint_dir x --tokenizer_dir y", "examples/run.py"),
        ("0.16.0", "trtllm-build --checkpoint_dir x --gemm_plugin fp4", "not 'fp4'"),
        ("0.16.0", "python3 examples/run.py", "needs --max_output_len"),
        ("0.7.1", "python3 examples/llama/build.py --tp_size 2", "2 is not 1"),
        ("0.7.1", "python3 examples/llama/build.py --use_smooth_quant --use_weight_only", "checks after parsing"),
        ("0.16.0", "trtllm-bench -m x build --target_isl 1 --target_osl 1", "has no --target_isl"),
        ("0.16.0", "trtllm-bench -m x biuld", "no place for 'biuld'"),
        ("0.12.0", "python hf_llama_convert.py -i x", "hf_llama_convert.py"),
        ("0.9.0", "python convert_checkpoint.py --model_dir x --no_such_thing", "--no_such_thing"),
        ("0.16.0", "python3 examples/run.py --max_output_len 5 $MORE --no_such_thing", "--no_such_thing"),
    ],
)  # fmt: skip
def test_rejected(release: str, text: str, says: str) -> None:
    answer = only(release, text)
    assert answer.verdict == "rejected"
    assert any(says in problem.message for problem in answer.problems), answer.problems


@pytest.mark.parametrize(
    ("release", "text", "says"),
    [
        ("0.16.0", "git clone x && pip install y", NOTHING),
        ("0.16.0", "", NOTHING),
        ("0.16.0", "trtllm-build --checkpoint_dir x $EXTRA", "$EXTRA"),
        ("0.16.0", "trtllm-build --checkpoint_dir x [options]", "[options]"),
        ("0.16.0", "python3 my_own_tool.py --x", "my_own_tool.py"),
        ("0.16.0", "python3 /home/me/tools/run.py --max_output_len 8", "if /home/me/tools/run.py is"),
        ("0.16.0", "python3 llama.py ./x c4 --wbits 4", "llama.py"),
        ("0.16.0", "python3 $SCRIPT --x", "$SCRIPT"),
        ("0.17.0", "trtllm-build --checkpoint_dir x --never_heard_of 1", "before and after"),
        ("0.17.0", "trtllm-serve x", "not recorded"),
        ("1.2.1", "python3 examples/summarize.py --test_trt_llm", "was not read at 1.2.1"),
        ("0.19.0", "python3 examples/run.py --max_output_len 8 --min_p 0.1", "--min_p"),
        ("0.19.0", "python examples/llama/convert_checkpoint.py", "examples/models/core/llama"),
        ("0.19.0", "python convert_checkpoint.py --no_such_thing", "before and after"),
        ("1.0.0", "python examples/gpt/build.py", "not known as a whole"),
    ],
)  # fmt: skip
def test_undecidable(release: str, text: str, says: str) -> None:
    answer = only(release, text)
    assert answer.verdict == "undecidable"
    assert not answer.problems
    assert any(says in reason for reason in answer.reasons), answer.reasons


def test_the_worst_of_several_commands_decides() -> None:
    good, bad = "trtllm-build --checkpoint_dir x", "trtllm-build --checkpoint_dir x --tp_size 2"
    answers = check(f"{good} && pip install y; {bad}", "0.16.0")
    assert [answer.verdict for answer in answers.commands] == ["accepted", "rejected"]
    assert answers.verdict == "rejected"
    assert verdict("0.16.0", f"{good}; trtllm-build --checkpoint_dir x $X") == "undecidable"


def test_cd_holds_for_its_subshell_only() -> None:
    text = "(cd examples/gpt && python build.py); python examples/llama/build.py"
    assert [a.script for a in check(text, "0.7.1").commands] == [
        "examples/gpt/build.py",
        "examples/llama/build.py",
    ]
    text = "cd examples; cd llama; python build.py; cd ..; python gpt/build.py"
    assert [a.script for a in check(text, "0.7.1").commands] == [
        "examples/llama/build.py",
        "examples/gpt/build.py",
    ]


def test_a_bare_name_is_taken_for_a_script_that_accepts_and_says_so() -> None:
    answer = only("0.7.1", "python build.py --model_dir x --rms_norm_eps 1e-5")
    assert answer.verdict == "accepted"
    assert answer.notes[0] == "taken for examples/llama/build.py"
    text = "python build.py --model_dir x --use_layernorm_plugin float16"
    assert verdict("0.7.1", text) == "accepted"
    assert verdict("0.7.1", text, named="examples/llama/build.py") == "rejected"


def test_placeholders_are_noted() -> None:
    answer = only("0.16.0", "trtllm-build --checkpoint_dir <path> --workers ${N}")
    assert answer.verdict == "accepted"
    assert "--checkpoint_dir <path>, --workers ${N}" in answer.notes[0]


def test_moved_defaults_are_noted() -> None:
    answer = only("0.14.0", "trtllm-build --checkpoint_dir x")
    assert any("--max_batch_size 2048 since 0.14.0 (before: 256)" in note for note in answer.notes)
    answer = only("0.14.0", "trtllm-build --checkpoint_dir x --max_batch_size 8")
    assert not any("--max_batch_size" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("release", "text", "suggestion"),
    [
        ("0.12.0", "mpirun -n 2 trtllm-build --max_input_len 100 --max_output_len 28 --checkpoint_dir 'a b'",
         "mpirun -n 2 trtllm-build --max_input_len 100 --max_seq_len 128 --checkpoint_dir 'a b'"),
        ("0.12.0", "trtllm-build --max_output_len=28 --checkpoint_dir x",
         "trtllm-build --max_seq_len 1052 --checkpoint_dir x"),
        ("0.13.0", "trtllm-build --use_fused_mlp --checkpoint_dir x",
         "trtllm-build --use_fused_mlp enable --checkpoint_dir x"),
        ("0.12.0", "trtllm-build --checkpoint_dir $C --tp_size 2 --use_custom_all_reduce disable",
         "trtllm-build --checkpoint_dir $C"),
        ("0.9.0", "trtllm-build --timing_cache=t --checkpoint_dir x",
         "trtllm-build --input_timing_cache=t --checkpoint_dir x"),
        ("0.13.0", "python3 examples/run.py --max_output_len 8 --multi_block_mode",
         "python3 examples/run.py --max_output_len 8 --multi_block_mode True"),
        ("0.12.0", "trtllm-build --max_output_len $N --checkpoint_dir x", None),
        ("0.12.0", "trtllm-build --max_output_len 5 --checkpoint_dir x --no_such 1", None),
        ("0.16.0", "trtllm-build --checkpoint_dir x --gemm_plugn auto", None),
    ],
)  # fmt: skip
def test_suggestions(release: str, text: str, suggestion: str | None) -> None:
    answer = only(release, text)
    assert answer.verdict == "rejected"
    assert answer.suggestion == suggestion
    if suggestion is not None:
        assert verdict(release, suggestion) == "accepted"


def test_without_explanations_the_verdicts_are_the_same() -> None:
    for release in data.release_order():
        for text in (
            "trtllm-build --checkpoint_dir x --max_output_len 5",
            "python convert_checkpoint.py --model_dir x --tp_size 2",
            "python examples/gpt/build.py --model_dir x",
        ):
            assert verdict(release, text) == verdict(release, text, explain=False)


def test_hostile_text_is_answered() -> None:
    for text in (
        "(" * 5000,
        "trtllm-build " + "--a " * 5000,
        "bash -c " * 50 + "'x'",
        "\0\n\\",
        "$(",
    ):
        assert verdict("0.16.0", text) in {"accepted", "rejected", "undecidable"}
