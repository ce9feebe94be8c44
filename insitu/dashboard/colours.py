# SPDX-License-Identifier: Apache-2.0
"""Okabe and Ito's colours, which the colour-blind can tell apart. Source: https://jfly.uni-koeln.de/color/"""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999")

#: Where the ranks' time goes.
TIME = {"computing": "#009E73", "staging": "#D55E00", "network": "#E69F00"}
TIME_LEGEND = (
    ("computing", TIME["computing"]),
    ("waiting for room on the staging nodes", TIME["staging"]),
    ("waiting for the network", TIME["network"]),
)
