#include "tensorrt_llm/plugins/api/tllmPlugin.h"

#include "tensorrt_llm/common/build.h"

#include <NvInferRuntime.h>

extern "C" bool initTrtLlmPlugins(void* logger, char const* libNamespace)
{
    if (logger != nullptr)
    {
        static_cast<nvinfer1::ILogger*>(logger)->log(
            nvinfer1::ILogger::Severity::kINFO, "stand-in plugins registered");
    }
    return libNamespace != nullptr && tensorrt_llm::common::answer() == 42 && getInferLibVersion() > 0;
}
