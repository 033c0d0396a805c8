"""The same numbers as transformers: logits within 1e-4, the same greedy tokens."""

from __future__ import annotations

import numpy as np
import pytest
from kit_rehearsal.communicator import SingleRank
from kit_rehearsal.decoder import Decoder
from kit_rehearsal.engine import Engine, Shape
from kit_rehearsal.generation import generate
from kit_rehearsal.huggingface import read_model
from kit_rehearsal.split import Placement, rank_weights
from kit_rehearsal.tensors import decode, encode

from tests.conftest import peer

torch = peer("torch")
transformers = peer("transformers")

PROMPT = list(range(5, 45, 3))


def ranked(directory, ranks, **options) -> Decoder:
    return Decoder(engine(directory, ranks.rank, ranks.size, **options), ranks)


def engine(directory, rank=0, size=1, dtype="float32") -> Engine:
    source = read_model(directory)
    weights = {
        name: decode(encode(value, dtype), dtype, value.shape)
        for name, value in rank_weights(source, Placement(rank, size)).items()
    }
    return Engine("0.9.0", rank, size, 1, dtype, source.shape, weights)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A random model: vocabulary of 101 tokens, an MLP of its own width, large weights."""
    path = tmp_path_factory.mktemp("gpt2-odd")
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=101, n_positions=64, n_embd=48, n_layer=2, n_head=4, n_inner=80,
        initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    made = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for value in made.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
    made.save_pretrained(path)
    return path


def peer(directory, dtype="float32"):
    loaded = transformers.GPT2LMHeadModel.from_pretrained(directory).float().eval()
    rounding = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    with torch.no_grad():
        for value in loaded.parameters():
            value.copy_(value.to(rounding[dtype]).float())
    return loaded


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("which", ["committed", "odd"])
def test_logits(which, dtype, model, odd) -> None:
    directory = model if which == "committed" else odd
    ours = ranked(directory, SingleRank(), dtype=dtype)
    logits = ours.logits(PROMPT, ours.cache(len(PROMPT)), last_only=False)
    with torch.no_grad():
        theirs = peer(directory, dtype)(torch.tensor([PROMPT])).logits[0].numpy()
    assert logits.dtype == np.float32
    assert np.abs(logits - theirs).max() <= 1e-4


@pytest.mark.parametrize("which", ["committed", "odd"])
def test_cache_changes_nothing(which, model, odd) -> None:
    ours = ranked(model if which == "committed" else odd, SingleRank())
    whole = ours.logits(PROMPT, ours.cache(len(PROMPT)), last_only=False)
    cache = ours.cache(len(PROMPT))
    steps = [ours.logits(PROMPT[:6], cache, last_only=True)[-1]]
    steps += [ours.logits([token], cache, last_only=True)[-1] for token in PROMPT[6:]]
    assert np.abs(np.stack(steps) - whole[5:]).max() <= 1e-4


@pytest.mark.parametrize("which", ["committed", "odd"])
def test_greedy_tokens(which, model, odd) -> None:
    directory = model if which == "committed" else odd
    ours = generate(ranked(directory, SingleRank()), PROMPT, 40, None)
    loaded = peer(directory)
    tokens = list(PROMPT)
    with torch.no_grad():
        for _ in range(40):
            tokens.append(int(loaded(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert ours.tokens == tokens[len(PROMPT) :]


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_agree_with_one(size, model, odd, world) -> None:
    for directory in (model, odd):
        alone = generate(ranked(directory, SingleRank()), PROMPT, 30, None)
        together = world(size).run(
            lambda rank, d=directory: generate(ranked(d, rank), PROMPT, 30, None)
        )
        vocabulary = engine(directory).model.vocab_size
        for one in together:
            assert one.tokens == alone.tokens
            difference = one.context_logits[:, :vocabulary] - alone.context_logits
            assert np.abs(difference).max() <= 1e-4


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_heads_that_are_turned_in_part(share) -> None:
    """GPT-NeoX without its parallel residual is GPT-Next's kind of positions."""
    torch.manual_seed(5)
    config = transformers.GPTNeoXConfig(
        vocab_size=101, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, hidden_act="gelu_new", rotary_pct=share, initializer_range=0.2,
        rotary_emb_base=5000, max_position_embeddings=64, use_parallel_residual=False,
    )  # fmt: skip
    theirs = transformers.GPTNeoXForCausalLM(config).eval()
    source = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    weights = {
        "transformer.vocab_embedding.weight": source["gpt_neox.embed_in.weight"],
        "lm_head.weight": source["embed_out.weight"],
    }
    names = {
        "input_layernorm": "input_layernorm",
        "post_attention_layernorm": "post_layernorm",
        "attention.dense": "attention.dense",
        "attention.query_key_value": "attention.qkv",
        "mlp.dense_h_to_4h": "mlp.fc",
        "mlp.dense_4h_to_h": "mlp.proj",
    }
    for kind in ("weight", "bias"):
        weights[f"transformer.ln_f.{kind}"] = source[f"gpt_neox.final_layer_norm.{kind}"]
        for layer in range(2):
            for old, new in names.items():
                value = source[f"gpt_neox.layers.{layer}.{old}.{kind}"]
                if new == "attention.qkv":  # theirs has the three of a head side by side
                    parts = np.split(value, 12)
                    value = np.concatenate([*parts[0::3], *parts[1::3], *parts[2::3]])
                weights[f"transformer.layers.{layer}.{new}.{kind}"] = value
    shape = Shape(
        n_layer=2, n_head=4, n_kv_head=4, head_size=16, hidden_size=64, inner_size=96,
        vocab_size=101, n_positions=64, norm="layer", norm_epsilon=config.layer_norm_eps,
        activation="gelu_new", rotary_dim=int(16 * share), rotary_base=5000.0,
    )  # fmt: skip
    ours = Decoder(Engine("0.9.0", 0, 1, 1, "float32", shape, weights), SingleRank())
    with torch.no_grad():
        expected = theirs(torch.tensor([PROMPT])).logits[0].numpy()
    found = ours.logits(PROMPT, ours.cache(len(PROMPT)), last_only=False)
    assert np.abs(found - expected).max() <= 1e-4


def test_committed_tokenizer_loads_everywhere(model) -> None:
    from kit_rehearsal.tokens import Tokenizer

    ours = Tokenizer(str(model))
    fast = transformers.GPT2TokenizerFast.from_pretrained(model)
    slow = transformers.GPT2Tokenizer.from_pretrained(model)
    for text in (
        "Alice was",
        "`Oh dear!' said the White Rabbit.\n",
        "Born in north-east France",
        "Café",
    ):
        ids = ours.encode(text, special=False)
        assert ids == fast(text).input_ids == slow(text).input_ids
        assert ours.decode(ids) == text
    assert ours.end_id == fast.eos_token_id == 383


def test_committed_model_speaks_english(model) -> None:
    from kit_rehearsal.tokens import Tokenizer

    tokenizer = Tokenizer(str(model))
    ours = ranked(model, SingleRank())
    made = generate(ours, tokenizer.encode("Alice was", special=False), 60, tokenizer.end_id)
    words = tokenizer.decode(made.tokens).replace(",", " ").split()
    text = (model.parent / "alice29.txt").read_text()
    known = set(text.replace(",", " ").replace(".", " ").split())
    assert sum(word.strip(".;:!?'`") in known for word in words) >= 0.7 * len(words)
