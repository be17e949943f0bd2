"""Recordings of event cameras: files, folders of files, and the tensors that networks take.

Needs nothing beyond NumPy, except for two kinds of files, whose libraries are imported when one is opened and are
installed by `pip install 'snncc[events]'`:

- HDF5: h5py, and hdf5plugin for the Blosc filters of DSEC;
- AEDAT 4: lz4 and zstandard, which its packets are compressed with.

The other formats are fixed-width words, which NumPy decodes at the speed of memory. The field's libraries were tried
on truncated and altered files first (expelliarmus 1.1.12, faery 0.7.1, aedat 2.3.0, dv-processing 2.0.4, evt3 0.4.1):
expelliarmus reads altered files without a word; faery and aedat unpack a packet of 66 kB to 3 GB, and may end in a
panic, which is no `Exception`; dv-processing doesn't come to the end of a file with altered packets; faery differs from
the other decoders of EVT 3.0 on vectors after single events. tonic is under the GPL and reads Prophesee's files through
expelliarmus. So they don't suit files of unknown origin. h5py refused or read hundreds of altered files unharmed.
"""

from snncc.events.camera import SaccadeCamera
from snncc.events.container import Events
from snncc.events.folder import EventFolder, Skipped
from snncc.events.reading import SUFFIXES, read
from snncc.events.representations import Slicing, count_frames, time_surface, voxel_grid

__all__ = [
    "SUFFIXES",
    "EventFolder",
    "Events",
    "SaccadeCamera",
    "Skipped",
    "Slicing",
    "count_frames",
    "read",
    "time_surface",
    "voxel_grid",
]
