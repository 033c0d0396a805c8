#pragma once

namespace tensorrt_llm::common
{
//! When and where this was compiled.
char const* when();
//! 42, if everything that belongs together was linked.
int answer();
} // namespace tensorrt_llm::common
