// Which of the compiled kernels draws: the widest that this processor can run, or the one that was asked for.
#pragma once

#include <string>
#include <vector>

#include "raster/coverage.hpp"

namespace sketchynet {

// Names of the instruction sets that this processor can run, the best first; the last is "portable".
const std::vector<std::string>& instruction_sets();

// Draws with the named one from now on, in all threads; "auto" is the best. False where it is unknown or cannot run
// here: nothing changes then.
bool use_instruction_set(const std::string& name);

// The one in use.
std::string instruction_set();
const Kernel& kernel();

}  // namespace sketchynet
