"""The kinds of events that an administrator searches the journal for: `journalctl MESSAGE_ID=…`.

The value is the MESSAGE_ID; it never changes, and each has its entry in systemd/autokmod.catalog.
"""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    KERNEL_READY = "a4dfd69eb3e44023a349b9dd8106798a"
    KERNEL_WAITING = "2146f112507e432b883b640a049d3375"
    KERNEL_DEGRADED = "f11257250e104bf792a549ed05e2fe03"
    KERNEL_NOT_READY = "c87bb41f8c5e42e2bfa332fcdf9e22d7"
    KERNEL_REMOVED = "1df229f21bfe4061bdb9767e8dd59974"
    PACKAGE_LINKED = "633c3fec2b2f452d9a7cbc4c26fcc461"
    PACKAGE_BUILT = "c6f9ba00b4fd4c8a8405185625fb63fc"
    BUILD_FAILED = "a90e987d09a544608152da02a42f1a66"
    PACKAGE_BLOCKED = "cae654eeba6f4d90b5e289de8a16c44e"
    PACKAGE_BROKEN = "3d604c5401154aa8b51ed371d7e1bb54"
    MODULES_PROMOTED = "75a715c7d83a41fdab277e38f6e7690d"
    FOREIGN_FILE = "b66c67148b084317906e9b606579bbd5"
    PLACEMENT_FAILED = "28397c75926540ffae0584286c984650"
    INITRD_REFRESHED = "08b4b9cc772649428d9755175673cfb9"
    INITRD_FAILED = "3d2cbdb79e134dabb3a890282eae1a8d"
    JOB_FAILED = "a3d01b87be704f2793ae9f2662950dff"
    FLUSH_UNFINISHED = "330bcd8f6c484c669a5483e3414e823e"
    JOB_DELAYED = "c5e3510a90414e9fb95ad7b3dc40452b"
    STORE_COLLECTED = "e2f15fd7d8b84a57b4b35cbe0c9d1f7a"
    STATE_DAMAGED = "daeeaae4785e40869ac81fa8fbf0d99d"
    CONFIG_WRONG = "bb6a622fe9d745688e9a7f69225f5da3"
    WATCH_LIMIT = "b6caffaa78aa4befa1b0a05e1d83c62c"
    NO_BUS = "4f3036ec2b8142498947c2769b6240af"
    INTERNAL_ERROR = "f54dc3d5135741aeb92678c48f6a56bb"
