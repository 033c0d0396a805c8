"""SmoothQuant, AWQ and calibration on whole models: nothing changes but the rounding."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from kit_rehearsal import awq, calibration, huggingface, llama_huggingface, quantization
from kit_rehearsal import scheme as schemes
from kit_rehearsal.communicator import SingleRank
from kit_rehearsal.decoder import Decoder
from kit_rehearsal.engine import Engine
from kit_rehearsal.errors import BackendError
from kit_rehearsal.linears import linear_of
from kit_rehearsal.scheme import Scheme
from kit_rehearsal.smooth_quant import (
    engine_tensors,
    int8_layer,
    matrix_names,
    smooth,
    smoother,
)

from tests.conftest import peer
from tests.unit.rehearsal.conftest import MODEL
from tests.unit.rehearsal.test_llama import write_model

PROMPT = list(range(3, 60, 2))
PLUGINS = [
    "W8A8_SQ_PER_TENSOR_PLUGIN",
    "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
    "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "llama")
    return {
        "gpt": huggingface.read_model(MODEL),
        "llama": llama_huggingface.read_model(folder),
    }


@pytest.fixture(scope="module")
def ranges(networks):
    return {name: calibration.measure(one, [PROMPT]) for name, one in networks.items()}


def logits(network, weights=None, kv_cache=None):
    tensors = network.weights if weights is None else weights
    engine = Engine("", 0, 1, 1, "float32", network.shape, tensors, kv_cache=kv_cache)
    decoder = Decoder(engine, SingleRank())
    return decoder.logits(PROMPT, decoder.cache(len(PROMPT)), last_only=False)


def quantized(network, scheme, ranges):
    rows = network.shape.norm == "rms"
    made = schemes.prepared(network, scheme, ranges, rows=rows)
    return schemes.finished(made.weights, scheme, "float32")


def distance(left, right) -> float:
    return float(np.sqrt(np.mean((left - right) ** 2) / np.mean(right**2)))


@pytest.mark.parametrize("family", ["gpt", "llama"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothing_alone_changes_nothing(family, alpha, networks, ranges) -> None:
    network = networks[family]
    made = smooth(network, ranges[family], alpha, rows=family == "llama")
    weights = dict(made.network.weights)
    for name, scale in made.smoothers.items():  # what a layer would divide its input by
        weights[f"{name}.weight"] = weights[f"{name}.weight"] / scale
    assert distance(logits(network, weights), logits(network)) < 1e-4
    # As smooth as promised: with 1/2, input and weight of a channel are as large as each other.
    if alpha == 0.5:
        name = "transformer.layers.1.attention.qkv"
        largest = np.abs(made.network.weights[f"{name}.weight"]).max(axis=0)
        assert made.ranges[name].inputs == pytest.approx(largest, rel=1e-3)
    assert all((scale == 1).all() for scale in made.smoothers.values()) is (family == "gpt")


def test_smoother() -> None:
    inputs, weights = np.array([4.0, 0.0], np.float32), np.array([1.0, 0.0], np.float32)
    assert smoother(inputs, weights, 0.5) == pytest.approx([2, 1])
    assert smoother(inputs, weights, 1.0)[0] == pytest.approx(4)


def test_scales_of_a_layer(networks, ranges) -> None:
    name = "transformer.layers.0.attention.qkv"
    weight, found = networks["gpt"].weights[f"{name}.weight"], ranges["gpt"][name]
    made = int8_layer(weight, found, (96, 96, 96))
    thirds = np.abs(weight).reshape(3, 96, 96).max(axis=(1, 2)) / 127
    assert made["scale_w_quant_orig"].reshape(3, 96) == pytest.approx(
        np.repeat(thirds[:, None], 96, axis=1)
    )
    assert made["scale_w_quant_orig.col"] == pytest.approx(np.abs(weight).max(axis=1) / 127)
    x, y = found.inputs.max() / 127, found.outputs.max() / 127
    assert made["scale_x_orig_quant"] == pytest.approx([1 / x])
    assert made["scale_y_quant_orig"] == pytest.approx([y])
    assert made["scale_y_accum_quant.col"] == pytest.approx(made["scale_w_quant_orig.col"] * x / y)
    assert np.abs(made["weight.int8.col"]).max(axis=1).tolist() == [127] * 288


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_layer_is_what_its_numbers_mean(per_token, per_channel, networks, ranges) -> None:
    name = "transformer.layers.0.mlp.fc"
    weight, found = networks["gpt"].weights[f"{name}.weight"], ranges["gpt"][name]
    made = int8_layer(weight, found, (len(weight),))
    tensors = engine_tensors(name, made, per_token=per_token, per_channel=per_channel)
    x = found.samples[:5]
    column = ".col" if per_channel else ""
    step = np.abs(x).max(axis=1, keepdims=True) / 127 if per_token else found.inputs.max() / 127
    rounded = np.clip(np.rint(x / step), -127, 127) * step
    means = made[f"weight.int8{column}"] * made[f"scale_w_quant_orig{column}"][:, None]
    assert linear_of(tensors, name)(x) == pytest.approx(rounded @ means.T, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("family", ["gpt", "llama"])
@pytest.mark.parametrize(
    ("algorithm", "most"),
    [
        ("W8A16", 0.02),
        ("W4A16", 0.2),
        ("W4A16_AWQ", 0.15),
        ("FP8", 0.1),
        ("W8A8_SQ_PER_CHANNEL", 0.03),
        *((name, 0.04) for name in PLUGINS),
    ],
)
def test_logits_stay_close_and_are_not_the_same(family, algorithm, most, networks, ranges) -> None:
    network = networks[family]
    made = quantized(network, Scheme(algorithm, alpha=0.5, group_size=16), ranges[family])
    found = distance(logits(network, made), logits(network))
    # The LLaMA is random, with weights so large that a small error grows from layer to layer.
    assert 1e-4 < found < most * (1 if family == "gpt" else 4)
    floats = [f"{name}.weight" for name in matrix_names(network)]
    assert all(made[name].dtype.name in {"int8", "uint8"} for name in floats)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_rounded_cache_is_used_by_later_steps(kind, networks, ranges) -> None:
    network = networks["llama"]
    scheme = Scheme(kv_cache=kind)
    weights = quantized(network, scheme, ranges["llama"])
    most = {"int8": 127, "fp8": 448}[kind]
    name = "transformer.layers.1.attention."
    assert weights[f"{name}kv_cache_scaling_factor"] == pytest.approx(
        [ranges["llama"][f"{name}qkv"].outputs.max() / most]
    )
    plain, rounded = logits(network), logits(network, weights, kind)
    assert np.array_equal(plain, rounded)  # one step: nothing comes out of the cache
    steps = []
    for tensors, cached in ((network.weights, None), (weights, kind)):
        engine = Engine("", 0, 1, 1, "float32", network.shape, tensors, kv_cache=cached)
        decoder = Decoder(engine, SingleRank())
        cache = decoder.cache(len(PROMPT))
        decoder.logits(PROMPT[:-1], cache, last_only=True)
        steps.append(decoder.logits(PROMPT[-1:], cache, last_only=True))
    assert 1e-5 < distance(steps[1], steps[0]) < {"int8": 0.1, "fp8": 0.3}[kind]
    assert distance(steps[0], plain[-1:]) < 1e-5


def test_a_quantized_cache_needs_its_scale(networks) -> None:
    with pytest.raises(
        BackendError, match=r"fp8 key/value cache: no tensor .*layers\.0\.attention"
    ):
        logits(networks["gpt"], kv_cache="fp8")


def test_awq_is_never_worse_than_plain_groups(networks, ranges) -> None:
    network = networks["gpt"]
    better = 0
    for name in matrix_names(network):
        weight, found = network.weights[f"{name}.weight"], ranges["gpt"][name]
        wanted = found.samples @ weight.T

        def error(scale, weight=weight, wanted=wanted, found=found):
            codes, steps = quantization.quantize_groups(weight * scale, 32)
            means = quantization.from_groups(codes, steps) / scale
            return np.mean((found.samples @ means.T - wanted) ** 2)

        plain, chosen = error(np.float32(1)), error(awq.search(weight, found, 32))
        assert chosen <= plain * 1.0001
        better += chosen < 0.9 * plain
    assert better > 0


def test_ranges_are_those_of_transformers(networks) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    loaded = transformers.GPT2LMHeadModel.from_pretrained(MODEL).float().eval()
    seen = {}

    def watch(name):
        def hook(_module, inputs, output):
            size = output.shape[-1]
            seen[name] = (
                inputs[0].abs().reshape(-1, inputs[0].shape[-1]).amax(0).numpy(),
                output.abs().reshape(-1, size).amax(0).numpy(),
            )

        return hook

    places = {"attn.c_attn": "attention.qkv", "attn.c_proj": "attention.dense"}
    places |= {"mlp.c_fc": "mlp.fc", "mlp.c_proj": "mlp.proj"}
    for layer, block in enumerate(loaded.transformer.h):
        for theirs, ours in places.items():
            module = block.get_submodule(theirs)
            module.register_forward_hook(watch(f"transformer.layers.{layer}.{ours}"))
    with torch.no_grad():
        loaded(torch.tensor([PROMPT]))
    found = calibration.measure(networks["gpt"], [PROMPT])
    assert set(found) == set(seen)
    for name, (inputs, outputs) in seen.items():
        assert found[name].inputs == pytest.approx(inputs, rel=1e-3, abs=1e-4), name
        assert found[name].outputs == pytest.approx(outputs, rel=1e-3, abs=1e-4), name


def test_several_texts_are_one_range(networks) -> None:
    each = [calibration.measure(networks["gpt"], [part]) for part in (PROMPT[:9], PROMPT[9:])]
    both = calibration.measure(networks["gpt"], [PROMPT[:9], PROMPT[9:]])
    for name, found in both.items():
        assert np.array_equal(found.inputs, np.maximum(each[0][name].inputs, each[1][name].inputs))
        assert len(found.samples) == len(PROMPT)
        sizes = [np.abs(one[name].samples).sum(axis=0) for one in each]
        assert found.means == pytest.approx((sizes[0] + sizes[1]) / len(PROMPT), rel=1e-4)


def test_long_texts_are_not_kept_whole(networks) -> None:
    found = calibration.measure(networks["gpt"], [list(range(200)) for _ in range(8)])
    assert {len(one.samples) for one in found.values()} == {300}  # of 1600: 6 texts, 50 each
    with pytest.raises(BackendError, match="there is no text to calibrate with"):
        calibration.measure(networks["gpt"], [])


def test_texts_of_a_folder(tmp_path) -> None:
    lines = [{"text": "Alice was beginning"}, {"article": "to get very tired", "id": "1"}]
    path = tmp_path / "validation.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    found = calibration.prompts_of(str(MODEL), str(tmp_path), longest=4)
    built_in = calibration.prompts_of(str(MODEL), "lambada")
    assert len(found) == 2
    assert max(map(len, found)) == 4
    assert len(built_in) == 4
    assert calibration.prompts_of(str(MODEL), str(tmp_path), most=1) == [
        calibration.prompts_of(str(MODEL), str(tmp_path))[0]
    ]
    path.write_text('{"text": "a"}\n{"title": "b"}')
    with pytest.raises(BackendError, match=r"validation.jsonl:2: expected a JSON object with text"):
        calibration.prompts_of(str(MODEL), str(tmp_path))
    path.unlink()
    with pytest.raises(BackendError, match="no dataset to calibrate with"):
        calibration.prompts_of(str(MODEL), str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight.int8": None}, "no tensor"),
        ({"per_channel_scale": np.ones(5, np.float32)}, "384 channels, but 5 scales"),
    ],
)
def test_tensors_that_do_not_fit(changes, message) -> None:
    name = "transformer.layers.0.mlp.fc"
    weights = {f"{name}.weight": np.ones((96, 384), dtype=np.int8)}
    weights |= {f"{name}.{kind}": value for kind, value in changes.items() if value is not None}
    with pytest.raises(BackendError, match=message):
        linear_of(weights, name)


def test_an_engine_says_when_weights_are_not_what_they_should_be(networks) -> None:
    weights = networks["gpt"].weights
    with pytest.raises(BackendError, match="not quantized, but quant_algo is FP8"):
        schemes.finished(weights, Scheme("FP8"), "float16")
    with pytest.raises(BackendError, match="but the cache is to be int8"):
        schemes.finished(weights, Scheme(kv_cache="int8"), "float16")


def test_modes() -> None:
    assert Scheme("W8A16").mode == 2
    assert Scheme("W4A16", kv_cache="int8").mode == 65
    assert [Scheme(name).mode for name in PLUGINS] == [6, 22, 14, 30]
    assert replace(Scheme(PLUGINS[0]), kv_cache="int8").mode == 70
    assert Scheme().mode == 0
