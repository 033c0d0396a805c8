#include <cuda_runtime.h>

extern "C" int standInSum(int const* values, int count)
{
    int sum = cudaRuntimeStandIn();
    for (int i = 0; i < count; ++i)
    {
        sum += values[i];
    }
    return sum;
}
