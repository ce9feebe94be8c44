# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run say to each other, and how."""
