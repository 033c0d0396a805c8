#include "tensorrt_llm/common/build.h"

#include <nccl.h>
#include <nvtx3/nvToolsExt.h>

extern "C" int standInSum(int const* values, int count);
extern "C" int batchManagerStandIn(void);

namespace tensorrt_llm::common
{
char const* when()
{
    // A careless build is told apart by this.
    return __DATE__ " " __TIME__ " " __FILE__;
}

int answer()
{
    int const values[] = {batchManagerStandIn(), NCCL_STAND_IN, NVTX_STAND_IN};
    return standInSum(values, 3);
}
} // namespace tensorrt_llm::common
