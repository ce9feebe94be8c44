# SPDX-License-Identifier: Apache-2.0
"""The one door to PyTorch, which is an extra: whoever lacks it reads one sentence with the cure."""

from insitu.errors import OperatorError

try:
    import torch as torch
except ModuleNotFoundError as error:
    raise OperatorError('training needs PyTorch, which is not installed: pip install "insitu[train]"') from error
