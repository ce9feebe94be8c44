# SPDX-License-Identifier: Apache-2.0
"""A staging node: receives blocks inside a Dask worker, folds them where they arrive, hands over windows.

`receiver` owns the sockets and `folder` the states, each in a thread of its own; `assembler` says which steps are
whole, `folds` turns them into calls of the operators. `executors` is the only door to Dask: it starts the nodes, keeps
their large states, and has them merged and written where they are, as `merging` says.
"""
