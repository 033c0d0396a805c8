#pragma once

extern "C"
{
    //! Registers the plugins of this library; the logger is TensorRT's.
    bool initTrtLlmPlugins(void* logger, char const* libNamespace = "tensorrt_llm");
}
