#include "tensorrt_llm/executor/version.h"

namespace tensorrt_llm::executor
{
char const* version() noexcept
{
    return kTensorRtLlmVersion;
}
} // namespace tensorrt_llm::executor
