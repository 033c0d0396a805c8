#include "tensorrt_llm/plugins/api/tllmPlugin.h"

int main()
{
    return initTrtLlmPlugins(nullptr) ? 0 : 1;
}
