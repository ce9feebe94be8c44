# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run say to each other, and how. Read it in this order:

==============  ====================================================================================
`messages`      what can be said: plain frozen data; `viewing` is what those say who look at a run
`limits`        how much of it
`fields`        how each kind of value is checked, the same way for sender and receiver
`schema`        which values each message holds
`codec`         messages to frames and back, without a socket
`session`       whose turn it is, without a clock
`sockets`       the one door to ZeroMQ
`contact`       the file that says where a run is found; `keys` are the secrets in it
==============  ====================================================================================

Each part is imported by its own name, so that whoever needs only messages does not load ZeroMQ.
"""
