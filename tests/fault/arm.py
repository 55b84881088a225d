"""arm.py: failpoints from a shell: arm.py new | arm.py ID NAME hang|off | arm.py ID NAME hits | arm.py ID free

The layout is that of base/failpoint.h; `new` prints the ID for CARZEROD_FAILPOINTS.
"""
import ctypes
import struct
import sys

PLACES, PLACE, HEAD = 256, 100, 24
SIZE = HEAD + PLACES * PLACE
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p

if sys.argv[1] == "new":
    number = libc.shmget(0, SIZE, 0o1600)
else:
    number = int(sys.argv[1])
at = libc.shmat(number, None, 0)
if number < 0 or at == ctypes.c_void_p(-1).value:
    sys.exit("no shared memory")
page = (ctypes.c_char * SIZE).from_address(at)
if sys.argv[1] == "new":
    struct.pack_into("=Q", page, 0, 0x315054504C494146)
    print(number)
    sys.exit()
if sys.argv[2] == "free":
    sys.exit(libc.shmctl(number, 0, None))


def place_of(name):
    """The place with this name, or a new one: set last, for the node may look meanwhile."""
    for i in range(PLACES):
        offset = HEAD + i * PLACE
        if struct.unpack_from("=I", page, offset)[0] == 0:
            struct.pack_into("=40s", page, offset + 24, name.encode())
            struct.pack_into("=I", page, offset, 2)
            return offset
        if page[offset + 24:offset + 64].rstrip(b"\0") == name.encode():
            return offset
    sys.exit("no place left")


offset = place_of(sys.argv[2])
if sys.argv[3] == "hits":
    print(struct.unpack_from("=I", page, offset + 20)[0])
else:
    struct.pack_into("=I", page, offset + 20, 0)
    struct.pack_into("=I", page, offset + 4, 5 if sys.argv[3] == "hang" else 0)
