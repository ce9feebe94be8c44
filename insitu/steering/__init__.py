# SPDX-License-Identifier: Apache-2.0
"""Parameters, actions, receipts, and how all ranks come to agree on an action. No sockets, no clock."""
