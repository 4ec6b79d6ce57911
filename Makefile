# `make swap` and `make test` need Python 3.10 or newer and make, nothing else.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin

# On Linux pip's own choice of PyTorch brings gigabytes of CUDA; PyTorch's index has builds for the CPU. It is asked only
# where there is no NVIDIA GPU; `make TORCH_INDEX=` asks pip's own index everywhere.
TORCH = torch==2.13.0
ifeq ($(shell nvidia-smi -L 2>/dev/null | grep ^GPU),)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif

SOURCE = examples/images/p001_portrait.jpg
TARGET = examples/images/p010_selfie.jpg
MARKERS = not slow and not gpu and not network

# Of the training at toy size: where it happens, people who are drawn, steps.
TOY = outputs/toy
PEOPLE = 60
STEPS = 60

.DEFAULT_GOAL = help
.PHONY: help install swap toy test lint format examples clean

help:
	@echo "make swap      swap the face in an example photo"
	@echo "make toy       draw faces, prepare them, train on them, and swap with what was trained: half an hour at most"
	@echo "make test      run the fast tests (MARKERS=slow: the slow ones)"
	@echo "make lint      check style and types"
	@echo "make format    put the code into the project's format"
	@echo "make examples  run every file in examples/"
	@echo "make install   only set up $(VENV)"
	@echo "make clean     remove $(VENV) and outputs/"

install: $(VENV)/.dev

swap: $(VENV)/.core
	@mkdir -p outputs
	@$(BIN)/faceswap-diffusion swap $(SOURCE) $(TARGET) --output outputs/swap.png --overwrite
	@echo "The picture is at $(CURDIR)/outputs/swap.png"

toy: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-deps random-face==2021.7.21.1
	$(BIN)/python tools/make_synthetic_faces.py --seeds 200000 $(PEOPLE) --looks 2 --output_dir $(TOY)/photos
	$(BIN)/python train/prepare_faces.py $(TOY)/photos --aligned --output_dir $(TOY)/faces
	$(BIN)/accelerate launch train/train_faceswap.py --config train/recipes/toy.yaml --max_train_steps $(STEPS) \
		--train_data_dir $(TOY)/faces --validation_data_dir $(TOY)/faces --output_dir $(TOY)/run
	$(BIN)/faceswap-diffusion swap $(SOURCE) $(TARGET) --checkpoint $(TOY)/run/pipeline --output $(TOY)/swap.png \
		--overwrite
	@echo "Curves, swaps, checkpoint and its card are in $(CURDIR)/$(TOY)/run, a swap is $(CURDIR)/$(TOY)/swap.png"

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal -m "$(MARKERS)"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

examples: $(VENV)/.dev
	@$(BIN)/python .ci/run_examples.py

clean:
	rm -rf $(VENV) outputs

# An empty file marks each step of the set-up as done; a changed pyproject.toml does it again.
$(VENV)/.core: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; name one, as in: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@
