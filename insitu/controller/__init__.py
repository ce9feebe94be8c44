# SPDX-License-Identifier: Apache-2.0
"""The process behind ``insitu run``: it starts staging and simulation, decides which steps are whole, stores results.

Read `run` for the order of things, `service` for who says what; `tracker` and `gather` decide and know no sockets.
"""
