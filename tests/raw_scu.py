"""raw_scu.py PORT FILE...: a storage SCU out of PS3.7 and PS3.8, for what no DICOM library here can send.

The data set goes out as it stands in the file, in the class and transfer syntax that its File Meta names,
known to anybody or not; each file has an association of its own.  One line a file: its path, and "0000" or
another status, or what happened instead.  Ends with the number of files that were not answered 0000H.
"""
import socket
import struct
import sys


def item(kind, body):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind, body):
    return struct.pack(">BBI", kind, 0, len(body)) + body


def element(number, value):
    if isinstance(value, int):
        value = struct.pack("<I" if number == 0 else "<H", value)
    else:
        value = value.encode() + b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


class Closed(Exception):
    pass


def receive(s):
    def exactly(n):
        b = b""
        while len(b) < n:
            part = s.recv(n - len(b))
            if not part:
                raise Closed()
            b += part
        return b
    kind, n = struct.unpack(">BxI", exactly(6))
    return kind, exactly(n)


def meta(b):
    """SOP class, SOP instance, transfer syntax, data set; None where the file has no File Meta."""
    if b[128:132] != b"DICM":
        return None
    at, v = 132, {}
    while b[at:at + 2] == b"\x02\x00":
        number, vr = struct.unpack("<H", b[at + 2:at + 4])[0], b[at + 4:at + 6]
        long = vr in (b"OB", b"UN", b"OW", b"UT", b"SQ")
        if len(b) < at + 12:
            return None
        n = struct.unpack("<I", b[at + 8:at + 12])[0] if long else struct.unpack("<H", b[at + 6:at + 8])[0]
        at += 12 if long else 8
        v[number] = b[at:at + n].rstrip(b"\0 ").decode("ascii", "replace")
        at += n
    if not all(v.get(k) for k in (2, 3, 0x10)):
        return None
    return v[2], v[3], v[0x10], b[at:]


def store(port, sop_class, uid, syntax, data):
    with socket.create_connection(("127.0.0.1", port), 120) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(pdu(1, struct.pack(">HH16s16s32x", 1, 0, b"CARZEROD".ljust(16), b"RAWSCU".ljust(16)) +
                      item(0x10, b"1.2.840.10008.3.1.1.1") +
                      item(0x20, b"\1\0\0\0" + item(0x30, sop_class.encode()) + item(0x40, syntax.encode())) +
                      item(0x50, item(0x51, struct.pack(">I", 65536)) + item(0x52, b"2.25.1"))))
        kind, body = receive(s)
        if kind != 2:
            return "association refused"
        at = 68
        while at < len(body):
            if body[at] == 0x21 and body[at + 6] != 0:
                return "context refused"
            at += 4 + struct.unpack(">H", body[at + 2:at + 4])[0]
        c = (element(2, sop_class) + element(0x100, 1) + element(0x110, 1) + element(0x700, 0) + element(0x800, 0) +
             element(0x1000, uid))
        c = element(0, len(c)) + c
        s.sendall(pdu(4, struct.pack(">IBB", len(c) + 2, 1, 3) + c))
        for a in range(0, max(len(data), 1), 16000):
            part = data[a:a + 16000]
            s.sendall(pdu(4, struct.pack(">IBB", len(part) + 2, 1, 2 if a + 16000 >= len(data) else 0) + part))
        kind, body = receive(s)
        at = body.find(b"\0\0\0\x09\x02\0\0\0")
        if kind != 4 or at < 0:
            return "association aborted"
        status = "%04X" % struct.unpack("<H", body[at + 8:at + 10])[0]
        s.sendall(pdu(5, b"\0" * 4))
        receive(s)
        return status


def main():
    wrong = 0
    for path in sys.argv[2:]:
        with open(path, "rb") as f:
            m = meta(f.read())
        try:
            said = "no File Meta" if m is None else store(int(sys.argv[1]), *m)
        except (Closed, OSError):
            said = "connection closed"
        wrong += said != "0000"
        print(path, said, sep="\t")
    sys.exit(min(wrong, 255))


main()
