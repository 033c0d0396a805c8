#include "tensorrt_llm/common/build.h"

#include <cstdio>

int main()
{
    std::printf("%s: %d\n", NAME, tensorrt_llm::common::answer());
    return 0;
}
