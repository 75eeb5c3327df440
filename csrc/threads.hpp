// Work split over threads that live for one call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace sketchynet {

// Calls work(first, last) on parts of 0..count, in as many threads.
template <typename Work>
void in_threads(std::int64_t count, int threads, const Work& work) {
    const auto parts = static_cast<std::int64_t>(std::max(1, threads));
    std::vector<std::thread> pool;
    for (std::int64_t part = 1; part < parts; ++part) {
        const std::int64_t first = count * part / parts, last = count * (part + 1) / parts;
        if (first < last) pool.emplace_back([&work, first, last] { work(first, last); });
    }
    work(0, count / parts);
    for (std::thread& thread : pool) thread.join();
}

}  // namespace sketchynet
