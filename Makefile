# `make help` lists the targets. They need python3 with its venv module, make and g++; everything
# else comes from PyPI into .venv.

PYTHON ?= python3
# The distribution of TensorFlow in .venv: tensorflow-cpu is half the size of tensorflow.
TENSORFLOW ?= tensorflow-cpu
BIN := .venv/bin
LIBRARY_FILES = $(shell find csrc -name '*.cc' -o -name '*.h')
CXX_FILES = $(shell find csrc tests -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
NATIVE_TESTS := native-test-plain native-test-asan native-test-tsan native-test-lanes16

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help venv test demo lint format native-test $(NATIVE_TESTS) seeded-bugs-cpu seeded-bugs-cuda test-cuda wheel wheel-aarch64 smoke clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

venv: .venv/installed ## make .venv: TensorFlow and this package, editable, its library built

test: venv ## run the tests
	$(BIN)/python -m pytest

demo: venv ## distil a student on real data and print the table
	$(BIN)/python examples/quickstart.py

lint: .venv/group-lint ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: .venv/group-lint ## rewrite the sources in the style that lint asks for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

native-test: $(NATIVE_TESTS) seeded-bugs-cpu ## run the C++ tests: as shipped, under sanitizers, with seeded bugs

native-test-asan: SANITIZE := address,undefined
native-test-tsan: SANITIZE := thread
# The code that AVX-512 runs, on machines without it.
native-test-lanes16: LANES := 16
$(NATIVE_TESTS): native-test-%: .venv/group-native
	$(BIN)/cmake -S . -B build/native-$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DKERAS_KD_BUILD_TESTS=ON -DKERAS_KD_SANITIZE=$(SANITIZE) -DKERAS_KD_LANES=$(LANES) \
	  -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
	$(BIN)/cmake --build build/native-$*
	$(BIN)/ctest --test-dir build/native-$* --output-on-failure

seeded-bugs-cpu seeded-bugs-cuda: seeded-bugs-%:
	$(PYTHON) -m tools.seeded_bugs $*

# native-test has run the emulated kernels too, under each sanitizer.
test-cuda: native-test-plain native-test-asan native-test-tsan seeded-bugs-cuda ## run the CUDA kernels in an emulator, with seeded bugs; check nvcc's output where nvcc is
	$(PYTHON) tests/cuda/check_nvcc.py

wheel: .venv/group-wheel ## build dist/*manylinux*.whl (x86-64) and the source distribution
	$(BIN)/python tools/build_wheel.py x86_64

wheel-aarch64: .venv/group-wheel ## cross-build the wheel for aarch64
	$(BIN)/python tools/build_wheel.py aarch64

smoke: ## try the wheel in fresh environments, one for each supported TensorFlow
	bash tools/smoke_test_wheel.sh $(PYTHON)

clean: ## remove what the targets made
	rm -rf .venv build dist keras_kd/lib *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/created:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	touch $@

# Again when the metadata or the library's sources change.
.venv/installed: .venv/created pyproject.toml setup.py CMakeLists.txt keras_kd/version.py \
		$(LIBRARY_FILES)
	$(BIN)/pip install --quiet --editable '.[$(TENSORFLOW),examples,test]'
	touch $@

# The dependency groups of pyproject.toml: tools of the developer, not of the user.
.venv/group-%: .venv/created pyproject.toml
	$(BIN)/pip install --quiet --group $*
	touch $@
