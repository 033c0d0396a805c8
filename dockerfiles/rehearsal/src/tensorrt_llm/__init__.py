"""The part of TensorRT-LLM's Python API that the reference backend answers to, 0.9.0 to 1.2.1.

It is not TensorRT-LLM: `__version__` carries the label `rehearsal`. The release is that of the tree
the process works in, or $KIT_REHEARSAL_RELEASE. What a script may say:

    from tensorrt_llm import BuildConfig, Mapping, build
    from tensorrt_llm._utils import mpi_barrier, mpi_rank
    from tensorrt_llm.models import LLaMAForCausalLM  # GPTForCausalLM converts from 0.12.0 on
    from tensorrt_llm.models.gpt.convert import unpack_nemo_ckpt  # from 0.12.0 on
    from tensorrt_llm.models.modeling_utils import QuantConfig
    from tensorrt_llm.quantization import QuantAlgo

    mapping = Mapping(world_size=W, tp_size=T, pp_size=P, rank=rank)
    model = LLaMAForCausalLM.from_hugging_face(DIR, "float16", mapping=mapping)
        # quantized weights: quantization=QuantConfig(...) until 0.10.0, then quant_config=
    LLaMAForCausalLM.quantize(DIR, CHECKPOINT, quant_config=…, dtype=…, mapping=…)  # one rank only
        # of rank -1 until 0.11.0, of rank 0 from 0.13.0 on; calib_dataset= from 0.10.0 on
    model.save_checkpoint(CHECKPOINT, save_config=rank == 0)  # a folder that is there
    model = LLaMAForCausalLM.from_checkpoint(CHECKPOINT, rank=rank)
    config = BuildConfig(max_batch_size=…, max_input_len=…)
        # max_output_len= until 0.10.0, max_seq_len= from 0.11.0 on
    config.plugin_config.gemm_plugin = "float16"
    build(model, config).save(ENGINE)
"""

from __future__ import annotations

from kit_rehearsal import api
from kit_rehearsal.api import BuildConfig, Mapping, build, mpi_barrier, mpi_rank, mpi_world_size

__version__ = f"{api.release()}+rehearsal"
__all__ = ["BuildConfig", "Mapping", "build", "mpi_barrier", "mpi_rank", "mpi_world_size"]
