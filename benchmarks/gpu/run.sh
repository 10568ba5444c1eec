#!/bin/bash
# check.py (or another script of this folder, named first) on a machine that has PyTorch and no network, with what
# prepare.py put into .gpu:
#   bash benchmarks/gpu/run.sh check.py --output gpu-check
#   bash benchmarks/gpu/run.sh rows.py --minutes 5
set -e
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
site=$(mktemp -d)
if ls .gpu/wheels/*.whl > /dev/null 2>&1; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .gpu/wheels/*.whl
fi
if [ ! -e .git ] && [ -d .gpu/git ] && command -v git > /dev/null; then
  # A copy without .git: with the commit, records can say by which code they were made.
  cp -r .gpu/git .git
  export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD
  git reset --quiet
fi
export PYTHONPATH=$PWD:$site:$PYTHONPATH LTBENCH_CACHE=${LTBENCH_CACHE:-$site/cache}
[ -f .gpu/cifar10-lt.zip ] && export LTBENCH_DATA=$PWD/.gpu/cifar10-lt.zip
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo "no nvidia-smi"
python3 -c "
import torch, torchvision, numpy, pydantic, ltrobust_bench
print('python', __import__('platform').python_version(), 'torch', torch.__version__, 'torchvision', torchvision.__version__,
      'numpy', numpy.__version__, 'pydantic', pydantic.VERSION, 'CUDA', torch.cuda.is_available(), ltrobust_bench.__file__)"
script=${1:-check.py}
shift || true
python3 "benchmarks/gpu/$script" "$@"
