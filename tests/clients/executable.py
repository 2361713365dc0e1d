"""The smallest program that a container can run: a static ELF file, written without a compiler."""

from __future__ import annotations

import struct

_LOAD_ADDRESS = 0x400000
_HEADERS_BYTES = 64 + 56
_MACHINES = {"amd64": 62, "arm64": 183}
ARCHITECTURES = tuple(_MACHINES)


def build_executable(architecture: str, message: str) -> bytes:
    """Return an executable for Linux on `architecture` that prints `message` and a newline, then exits 0."""
    text = message.encode() + b"\n"
    body = (_amd64_code if architecture == "amd64" else _arm64_code)(len(text)) + text
    size = _HEADERS_BYTES + len(body)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, version 1
        2,  # an executable
        _MACHINES[architecture],
        1,
        _LOAD_ADDRESS + _HEADERS_BYTES,  # entry point
        64,  # offset of the program headers
        0,
        0,
        64,
        56,
        1,  # one program header
        0,
        0,
        0,
    )
    # One segment, readable and executable, that maps the whole file.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x10000)
    return header + segment + body


def _amd64_code(length: int) -> bytes:
    before = b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00"  # mov eax, 1 (write); mov edi, 1 (stdout)
    after = b"\xba" + struct.pack("<I", length) + b"\x0f\x05"  # mov edx, length; syscall
    after += b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05"  # mov eax, 60 (exit); xor edi, edi; syscall
    return before + b"\x48\x8d\x35" + struct.pack("<i", len(after)) + after  # lea rsi, [rip + past the code]


def _arm64_code(length: int) -> bytes:
    return struct.pack(
        "<8I",
        0xD2800020,  # mov x0, #1 (stdout)
        0x100000E1,  # adr x1, past the code
        0xD2800002 | length << 5,  # mov x2, #length
        0xD2800808,  # mov x8, #64 (write)
        0xD4000001,  # svc #0
        0xD2800000,  # mov x0, #0
        0xD2800BA8,  # mov x8, #93 (exit)
        0xD4000001,  # svc #0
    )
