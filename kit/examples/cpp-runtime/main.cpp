// Registers TensorRT-LLM's plugins with TensorRT and says what it is linked against.
//
// usage: cpp-runtime [FILE]   exit 0: the runtime is there, whole, and of one version.

#include <NvInferRuntime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

// Written by the release's own build from 0.12.0 on.
#if __has_include(<tensorrt_llm/executor/version.h>)
#include <tensorrt_llm/executor/version.h>
#define HAS_VERSION 1
#endif

// Declared here, as not every image has a header for them: the plugins' own is outside of
// cpp/include up to 0.8.0, `version` came with 0.12.0. Weak: what a release lacks stays null.
extern "C"
{
    bool initTrtLlmPlugins(void* logger, char const* libNamespace) __attribute__((weak));
    // The name in the early history of the tree (cpp/tensorrt_llm/plugins/api/InferPlugin.cpp).
    bool initLibNvInferPlugins(void* logger, char const* libNamespace) __attribute__((weak));
}

namespace tensorrt_llm::executor
{
char const* version() noexcept __attribute__((weak));
} // namespace tensorrt_llm::executor

namespace
{

class Logger : public nvinfer1::ILogger
{
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override
    {
        if (severity <= Severity::kERROR)
        {
            ++errors;
        }
        if (severity <= Severity::kINFO)
        {
            std::fprintf(stderr, "TensorRT: %s\n", message);
        }
    }

    int errors{0};
};

int fail(std::string const& what)
{
    std::cerr << "cpp-runtime: " << what << std::endl;
    return EXIT_FAILURE;
}

} // namespace

int main(int argc, char** argv)
{
    std::ostringstream report;
    report << "tensorrt_library " << getInferLibVersion() << "\n";

    Logger logger;
    auto* const initialise = initTrtLlmPlugins ? initTrtLlmPlugins : initLibNvInferPlugins;
    if (initialise == nullptr)
    {
        return fail("the plugin library exports no function that registers its plugins");
    }
    if (!initialise(&logger, "tensorrt_llm") || logger.errors != 0)
    {
        return fail("the plugins were not registered");
    }
    report << "plugins registered\n";

    std::string header;
#ifdef HAS_VERSION
    header = tensorrt_llm::executor::kTensorRtLlmVersion;
    report << "tensorrt_llm_header " << header << "\n";
#endif
    if (tensorrt_llm::executor::version != nullptr)
    {
        std::string const library = tensorrt_llm::executor::version();
        report << "tensorrt_llm_library " << library << "\n";
        if (!header.empty() && header != library)
        {
            return fail("headers are of " + header + ", the library is of " + library);
        }
    }

    std::cout << report.str() << std::flush;
    if (argc > 1 && !(std::ofstream(argv[1]) << report.str()).flush())
    {
        return fail(std::string("cannot write ") + argv[1]);
    }
    return EXIT_SUCCESS;
}
