#include "raster/dispatch.hpp"

#include <atomic>
#include <cstddef>

namespace sketchynet {
namespace {

struct Entry {
    const char* name;
    const Kernel* kernel;
};

const std::vector<Entry>& runnable() {
    static const std::vector<Entry> found = [] {
        std::vector<Entry> entries;
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool bits = __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
        if (bits && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl")) {
            if (__builtin_cpu_supports("avx512vpopcntdq")) entries.push_back({"avx512", &kAvx512Kernel});
            entries.push_back({"avx512bw", &kAvx512BwKernel});
        }
        if (bits && __builtin_cpu_supports("avx2")) entries.push_back({"avx2", &kAvx2Kernel});
        entries.push_back({"sse2", &kSse2Kernel});
#endif
        entries.push_back({"portable", &kPortableKernel});
        return entries;
    }();
    return found;
}

std::atomic<std::size_t> chosen{0};

}  // namespace

const std::vector<std::string>& instruction_sets() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> result;
        for (const Entry& entry : runnable()) result.emplace_back(entry.name);
        return result;
    }();
    return names;
}

bool use_instruction_set(const std::string& name) {
    const std::vector<std::string>& names = instruction_sets();
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == name || name == "auto") {
            chosen = i;
            return true;
        }
    }
    return false;
}

std::string instruction_set() { return runnable()[chosen].name; }

const Kernel& kernel() { return *runnable()[chosen].kernel; }

}  // namespace sketchynet
