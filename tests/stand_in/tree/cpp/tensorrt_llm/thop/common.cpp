#include "tensorrt_llm/common/build.h"

extern "C" int thCommonStandIn()
{
    return tensorrt_llm::common::answer();
}
