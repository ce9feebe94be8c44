# SPDX-License-Identifier: Apache-2.0
"""What a simulation calls: `Client`. Imports NumPy, pyzmq and msgpack only, in below 0.15 s."""

from insitu.client.client import CONTACT, Client
from insitu.client.parameters import Parameter, StateArray
from insitu.client.writer import StepWriter

__all__ = ["CONTACT", "Client", "Parameter", "StateArray", "StepWriter"]
