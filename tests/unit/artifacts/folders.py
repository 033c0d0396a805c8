"""Artifacts as the releases write them: the smallest that still have every part."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from kit.data import repository as table

DATA = Path(__file__).with_name("data")
REAL_HEAD = DATA / "tensorrt-8.6.0-sm90.head"


def plan(version="10.7.0.23"):
    """The 28 documented bytes of a plan, and some that nobody documents."""
    return b"ftrt" + bytes(20) + bytes(map(int, version.split("."))) + bytes(range(36))


def tensors(shapes=None, dtype="F16"):
    """A safetensors file of zeros."""
    place, header = 0, {"__metadata__": {"format": "pt"}}
    for name, shape in (shapes or {"a": [2, 3], "b": [4]}).items():
        size = 2
        for count in shape:
            size *= count
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(place)


def rehearsal(release="0.16.0", rank=0, world_size=1):
    header = json.dumps(
        {"backend": "kit-rehearsal", "dtype": "float16", "rank": rank, "release": release,
         "version": f"{release}+rehearsal", "world_size": world_size}
    ).encode()  # fmt: skip
    return struct.pack("<16sII", b"KIT-REHEARSAL\0\0\0", 1, len(header)) + header + tensors()


def rehearsal_plan(layers=(), body=None, **told):
    """A rehearsal engine with a plan in it, and what TensorRT's inspector said of its layers."""
    body = plan("8.6.0.12") if body is None else body
    listed = json.dumps({"layers": list(layers)}).encode()
    header = json.dumps(
        {"backend": "kit-rehearsal", "dtype": "float32", "rank": 0, "release": "0.16.0",
         "version": "0.16.0+rehearsal", "world_size": 1,
         "plan": {"bytes": len(body), "compute_capability": "9.0", "layer_bytes": len(listed),
                  "optimization_level": 0, "tensorrt": "8.6.0.12", **told}}
    ).encode()  # fmt: skip
    fixed = struct.pack("<16sII", b"KIT-REHEARSAL\0\0\0", 3, len(header))
    return fixed + header + listed + body


def pointer(size=1234):
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize {size}\n".encode()


def version_config(release="0.16.0", tp=2, pp=1, **model):
    """config.json of trtllm-build."""
    return {
        "version": release,
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": "float16",
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "mapping": {"world_size": tp * pp, "tp_size": tp, "pp_size": pp},
            "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
            **model,
        },
        "build_config": {
            "max_batch_size": 8,
            "max_input_len": 2048,
            "max_seq_len": 2560,
            "max_beam_width": 1,
            "max_num_tokens": 8192,
            "auto_parallel_config": {"world_size": 1, "cluster_key": "H100-SXM"},
            "plugin_config": {"gemm_plugin": "float16", "paged_kv_cache": True},
        },
    }


def builder_config(tp=2, pp=1, **builder):
    """config.json of an old build.py."""
    return {
        "builder_config": {
            "name": "llama",
            "precision": "float16",
            "tensor_parallel": tp,
            "pipeline_parallel": pp,
            "num_heads": 32,
            "num_kv_heads": 32,
            "max_batch_size": 8,
            "max_input_len": 2048,
            "max_output_len": 512,
            "quant_mode": 0,
            **builder,
        },
        "plugin_config": {"gemm_plugin": "float16"},
    }


def write(folder, files):
    """Write files by their paths: bytes, text, or what becomes JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, (bytes, str)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def new_engine(folder, tp=2, pp=1, release="0.16.0", tensorrt="10.7.0.23", **model):
    ranks = {f"rank{n}.engine": plan(tensorrt) for n in range(tp * pp)}
    return write(folder, {"config.json": version_config(release, tp, pp, **model), **ranks})


def old_engine(folder, tp=2, pp=1, tensorrt="9.2.0.5", **builder):
    pipeline = f"_pp{pp}" if pp > 1 else ""
    ranks = {
        f"llama_float16_tp{tp}{pipeline}_rank{n}.engine": plan(tensorrt) for n in range(tp * pp)
    }
    files = {"config.json": builder_config(tp, pp, **builder), "model.cache": b"cache", **ranks}
    return write(folder, files)


def model_config(family, model, version, fill=None):
    """The config.pbtxt that the backend has for a model: placeholders left, unless `fill` has them."""
    fill = fill or {}
    rows = {row["name"]: row for row in table.models(version) if row["family"] == family}
    backend = rows[model]["backend"].replace(
        "${triton_backend}", fill.get("triton_backend", "${triton_backend}")
    )
    kind = "platform" if backend == "ensemble" else "backend"
    lines = [f'name: "{model}"', f'{kind}: "{backend}"']
    parameters = table.parameters(family, model, version)
    for name, row in parameters.items():
        blank = row.get("value") or fill.get(row["name"], "${" + row["name"] + "}")
        lines.append(f'parameters: {{ key: "{name}" value: {{ string_value: "{blank}" }} }}')
    for tensor in sorted(table.tensors(family, model, version)):
        direction, _, name = tensor.partition(":")
        lines.append(f'{direction} [ {{ name: "{name}" data_type: TYPE_INT32 dims: [ -1 ] }} ]')
    for row in table.placeholders(family, model, version):
        value = fill.get(row["name"], "${" + row["name"] + "}")
        if row["fields"][0] == "max_batch_size":
            lines.append(f"max_batch_size: {value}")
        elif row["fields"][0] == "model_transaction_policy.decoupled":
            lines.append(f"model_transaction_policy {{ decoupled: {value} }}")
        elif row["fields"][0].startswith("instance_group"):
            lines.append(f"instance_group [ {{ count: {value} kind: KIND_CPU }} ]")
    if rows[model].get("steps"):
        steps = ", ".join(
            f'{{ model_name: "{step}" model_version: -1 }}' for step in rows[model]["steps"]
        )
        lines.append(f"ensemble_scheduling {{ step [ {steps} ] }}")
    return "\n".join(lines) + "\n"


def repository(folder, version="0.16.0", fill=None):
    """The backend's own repository of a version."""
    for row in table.models(version):
        if row["family"] == "inflight_batcher_llm":
            files = {
                f"{row['name']}/config.pbtxt": model_config(
                    row["family"], row["name"], version, fill
                )
            }
            files |= {f"{row['name']}/{name}": "# model" for name in row["files"]}
            write(folder, files)
            (folder / row["name"] / "1").mkdir(exist_ok=True)
    return folder


def filled(**more):
    """Values for all placeholders."""
    names = {row["name"] for row in table.table()["placeholders"]}
    numbers = dict.fromkeys(names, "1")
    return {**numbers, "decoupled_mode": "false", "triton_backend": "tensorrtllm", **more}
