#!/usr/bin/env bash
# Colab's situation: torch, numpy and the usual scientific packages are there already and must stay as they are;
# the notebook's first cell adds labcore with --no-deps, and setup() may add what its widgets need the same way.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment"
pip() { "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

pip "torch>=2.11" --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"
pip numpy matplotlib sympy pandas scipy ipywidgets ipykernel nbformat pyyaml pydantic requests tqdm
freeze() { "$environment/bin/python" -m pip freeze --disable-pip-version-check | grep -E '^(torch|numpy|sympy|matplotlib)=='; }
before=$(freeze)

pip --no-deps .
pip --no-deps anywidget psygnal
"$environment/bin/python" -c 'from labcore.learn.notebook import *; setup("colab")'
test "$before" = "$(freeze)" || { echo "installing labcore changed what Colab had preinstalled"; exit 1; }

shopt -s nullglob
notebooks=(book/*.ipynb labs/*.ipynb)
if ((${#notebooks[@]})); then
  pip pytest nbval
  LABCORE_MODE=recorded OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest -q -o addopts= -p no:cacheprovider \
    --nbval --nbval-current-env --nbval-sanitize-with=tests/notebooks/sanitize.cfg "${notebooks[@]}"
fi
