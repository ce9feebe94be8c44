# SPDX-License-Identifier: Apache-2.0
"""Okabe and Ito's colours, which the colour-blind can tell apart. Source: https://jfly.uni-koeln.de/color/"""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999")

#: Where the ranks' time goes.
TIME = {
    "computing": "#009E73",
    "fold": "#D55E00",
    "trainer": "#CC79A7",
    "recording": "#0072B2",
    "memory": "#E69F00",
    "network": "#56B4E9",
    "action": "#999999",
}
TIME_LEGEND = (
    ("computing", TIME["computing"]),
    ("waiting for a fold", TIME["fold"]),
    ("for the trainer", TIME["trainer"]),
    ("for the recording", TIME["recording"]),
    ("for staging memory", TIME["memory"]),
    ("for the network", TIME["network"]),
    ("for an action", TIME["action"]),
)
