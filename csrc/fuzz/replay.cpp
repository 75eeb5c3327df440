// Runs a fuzz target over the files that are named: for sanitizers that libFuzzer does not go with, and without clang.
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length);

int main(int count, char** names) {
    for (int i = 1; i < count; ++i) {
        std::FILE* file = std::fopen(names[i], "rb");
        if (!file) {
            std::perror(names[i]);
            return 2;
        }
        std::vector<std::uint8_t> bytes(1 << 20);
        bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
        std::fclose(file);
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
    std::printf("%d files\n", count - 1);
    return 0;
}
