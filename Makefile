# `make demo` and `make test` create the environment they need in .venv and run.
# They need Python >= 3.11 and a C++ compiler; everything else comes from PyPI.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_INPUTS := setup.py pyproject.toml constraints.txt CMakeLists.txt \
	$(wildcard csrc/*.cpp csrc/*.hpp csrc/raster/*.cpp csrc/raster/*.hpp csrc/raster/*.inl)
SANITIZED := build/sanitized

# One gloo or OpenMP thread a process: the processes themselves fill the cores.
test check: export OMP_NUM_THREADS ?= 1
# Processes of pytest; tests/conftest.py keeps the tests of a file, and all that start Ray, in one of them.
TEST_PROCESSES ?= 2
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo test check hosts lint sanitize tsan fuzz clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/sketchynet train demo --workers 2

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadgroup
	$(MAKE) lint

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

# Everything: the tests, slow ones too, the sanitizers, and a minute of fuzzing (which needs clang).
check: test sanitize tsan
	$(BIN)/python -m pytest -q -m slow
	$(MAKE) fuzz FUZZ_SECONDS=60
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) hosts; else echo "make hosts needs root; run it with sudo"; fi

# A cluster of three hosts in network namespaces of this machine; one is lost on the way (cluster/README.md).
hosts: $(VENV)/.dev
	$(BIN)/python cluster/namespaces.py check

# The drawing tests again, over the extension built with the address and undefined-behaviour sanitizers.
# Leak detection is off: the interpreter itself never frees everything.
sanitize: $(VENV)/.dev
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	cp -r sketchynet $(SANITIZED)/ && rm -f $(SANITIZED)/sketchynet/_core*.so
	$(BIN)/cmake -S . -B $(SANITIZED)/cmake -GNinja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DCMAKE_BUILD_TYPE=Release -DSKETCHYNET_SANITIZE=ON \
		-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(abspath $(SANITIZED))/sketchynet \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build $(SANITIZED)/cmake
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 SKETCHYNET_EXPECT_CORE=$(abspath $(SANITIZED)) PYTHONPATH=$(SANITIZED) \
		$(BIN)/python -P -m pytest -q tests/test_sketch.py tests/test_raster.py tests/test_raster_calls.py \
		tests/test_raster_corpus.py tests/test_simplify.py tests/ops/test_native.py tests/models/test_fused_norm.py

# The fuzz corpus once more with several threads under the thread sanitizer.
tsan: $(VENV)/.dev
	$(BIN)/cmake -S . -B build/tsan -GNinja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DCMAKE_BUILD_TYPE=Release -DSKETCHYNET_FUZZ=ON -DSKETCHYNET_THREAD_SANITIZE=ON
	$(BIN)/cmake --build build/tsan
	build/tsan/raster_replay tests/raster_corpus/*

# Coverage-guided fuzzing of the rasteriser with libFuzzer (Debian: apt-get install clang); what it finds lands in
# build/fuzz, new inputs in build/fuzz/corpus.
FUZZ_SECONDS ?= 900
fuzz: $(VENV)/.dev
	@command -v clang++ >/dev/null || { echo "make fuzz needs clang (Debian: apt-get install clang)"; exit 1; }
	$(BIN)/cmake -S . -B build/fuzz -GNinja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Release -DSKETCHYNET_FUZZ=ON -DSKETCHYNET_SANITIZE=ON
	$(BIN)/cmake --build build/fuzz
	mkdir -p build/fuzz/corpus
	cd build/fuzz && ./raster_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=600 -timeout=300 -print_final_stats=1 \
		corpus ../../tests/raster_corpus

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.dev: $(BIN)/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' \
		cmake ninja 'pybind11>=3,<4'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build *.egg-info sketchynet/_core*.so
