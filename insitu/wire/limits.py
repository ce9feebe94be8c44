# SPDX-License-Identifier: Apache-2.0
"""How much a peer may ask of us. Every limit is checked before anything of that size is allocated.

They are far above what an honest run needs, and low enough that a broken peer costs megabytes, not the machine.
"""

#: A header. The largest honest one is a layout of 4,096 blocks of some 150 bytes. A header is unpacked into Python
#: objects that take up to 72 times its size (one byte gives an empty dict), so this is what keeps that below 80 MiB.
#: Precedent: gRPC takes messages of up to 4 MiB.
HEADER_BYTES = 1 << 20

#: One raw buffer: a rank's part of one variable. A field of 512^3 float64 on a single rank is 1 GiB.
BUFFER_BYTES = 4 << 30

#: The arrays of all states in one `Partial`. States travel there up to 64 KiB; larger ones stay with Dask.
STATES_BYTES = 64 << 20

#: Values of one picture that a staging node sends: a screen of 2,048 x 1,024 points.
SIGHT_VALUES = 1 << 21

#: Exact cells that a staging node sends at once: half of what a viewer takes in one frame. Who wants more of a field
#: asks for it in pieces; of a joined variable, whose rows have no numbers, this is all there is.
SIGHT_BYTES = 32 << 20

#: Steps that a staging node retains, however small they are: all are looked through for each look.
RETAINED = 256

#: Blocks in one layout, and so raw buffers behind one header. A simulation has tens of variables.
BLOCKS = 4096

#: Blocks in all the layouts that one session remembers (some 100 MiB). Layouts differ where ranks change their parts.
SESSION_BLOCKS = 1 << 18

#: Lists and dicts. The longest honest one names every rank of a run, so this is how many those may be.
ITEMS = 1 << 16

#: Dimensions. NumPy had 32 of them until version 2, which has 64.
DIMENSIONS = 32

#: Names of variables, dimensions, operators, hosts; in characters. POSIX has host and file names of up to 255.
NAME_CHARS = 256

#: Text for people: reasons, descriptions, a traceback.
TEXT_CHARS = 1 << 16

#: Lists and dicts inside each other, in a state.
DEPTH = 16

#: The largest whole number: sequences, sizes and lengths fit a signed 64-bit integer.
WHOLE = (1 << 63) - 1
