"""initrd: look into a kernel's image, take it apart, put it together, put the former one back, lay over it."""

from __future__ import annotations

import argparse
import os
import stat
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from autokmod.act.imagerepack import repack_image
from autokmod.act.imageunpack import unpack_image
from autokmod.config_load import load_config
from autokmod.ctl.jobs import may_write_spool
from autokmod.ctl.render import BOLD, clean, paint, reason_lines
from autokmod.ctl.view import NOT_READY, OK, output_of, paths_of
from autokmod.errors import NotAuthorized, UnknownKernel, UsageError
from autokmod.files import write_file
from autokmod.jobs.byhand import overlay_by_hand, restore_image
from autokmod.jobs.overlay import read_conf
from autokmod.jsonvalue import from_json, to_json
from autokmod.model import Reason
from autokmod.observe.image.carried import made_by
from autokmod.observe.image.contents import Image, read_image
from autokmod.observe.image.cpio import Entry
from autokmod.observe.image.manifest import kind_of
from autokmod.observe.image.segments import Segment
from autokmod.observe.initrd import find_image
from autokmod.observe.kernels import is_krel, read_kernel
from autokmod.observe.machine import is_daemon_running
from autokmod.paths import Paths

IMAGE_MODE = 0o600  # images hold keys now and then
FORMS = "cpio, gzip, xz, zstd, lz4, bzip2, lzma, lzo, appended segments and unified kernel images"


def add_parser(sub: Any) -> None:
    parser = sub.add_parser(
        "initrd",
        help="list, unpack, repack, restore or overlay an initrd image",
        description=f"Look into an initrd image, all segments of it ({FORMS}), edit it by hand, or put back the one "
        "that was there before autokmod had it made anew.",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_list(verbs)
    _add_unpack(verbs)
    _add_repack(verbs)
    _add_restore(verbs)
    _add_overlay(verbs)


def _add_list(verbs: Any) -> None:
    parser = verbs.add_parser(
        "list",
        help="show every segment and what is in it",
        description="Show every segment of an image, where it begins, how it is compressed, and its files in order.",
    )
    parser.add_argument("image", metavar="IMAGE|KREL", help="a file, or the kernel whose image it is")
    parser.add_argument("-l", "--long", action="store_true", help="with mode, size, and what links lead to")
    parser.set_defaults(run=run_list)


def _add_unpack(verbs: Any) -> None:
    parser = verbs.add_parser(
        "unpack",
        help="unpack an image for editing",
        description="Unpack an image: each segment into a directory of its own below DIR, and manifest.json, which "
        "holds what files cannot: order, owners, device nodes, padding. Of a unified kernel image, its initrd.",
    )
    parser.add_argument("image", metavar="IMAGE|KREL", help="a file, or the kernel whose image it is")
    parser.add_argument("directory", metavar="DIR", help="not there yet, or empty")
    parser.set_defaults(run=run_unpack)


def _add_repack(verbs: Any) -> None:
    parser = verbs.add_parser(
        "repack",
        help="make an image of what was unpacked",
        description="Make an image of what 'unpack' wrote and perhaps somebody edited: the same segments in the same "
        "order, compressed as they were. What was not touched is as it was; new files belong to root.",
    )
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("-o", "--output", metavar="IMAGE", required=True, help="the image to write")
    parser.set_defaults(run=run_repack)


def _add_restore(verbs: Any) -> None:
    parser = verbs.add_parser(
        "restore",
        help="put the previous image of a kernel back",
        description="Put back the image that stood before autokmod had it made anew; the present one is kept in its "
        "place. It stays until modules of the kernel change or 'reconcile --force KREL' is asked for. "
        "Exit status: 0 if the kernel's modules are in it as they are on disk, 3 if not.",
    )
    parser.add_argument("krel", metavar="KREL")
    parser.set_defaults(run=run_restore)


def _add_overlay(verbs: Any) -> None:
    parser = verbs.add_parser(
        "overlay",
        help="make a small initrd with autokmod's modules alone",
        description="Make an archive of autokmod's modules that belong in the initrd of a kernel, of what they need "
        "beyond what the image has, and of an index over both. Append it to the image, at a multiple of four bytes, or "
        "have the boot loader load it behind the image: a further 'initrd' line of a boot loader entry, or name on "
        "GRUB's 'initrd' line, 'initrd=a,b' for PXELINUX, a further 'initrd' line for iPXE.",
    )
    parser.add_argument("krel", metavar="KREL")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive to write")
    parser.add_argument("--image", metavar="IMAGE", help="the image that it will lie over (default: the kernel's)")
    parser.add_argument(
        "--modprobe-conf", metavar="FILE", nargs="+", default=[], help="files that it carries in /etc/modprobe.d"
    )
    parser.set_defaults(run=run_overlay)


def image_of(paths: Paths, wish: str) -> str:
    """Raises UsageError, UnknownKernel."""
    if "/" in wish or os.path.isfile(wish) or not is_krel(wish):
        return wish
    try:
        krel = read_kernel(paths, wish).krel
    except UnknownKernel as exc:
        raise UsageError(f"{wish} is neither a file here nor a kernel of this machine") from exc
    found = find_image(paths, krel)
    if found is None:
        raise UsageError(f"no initrd of {krel} is found; name the file")
    return str(found.path)


# ---- list ----------------------------------------------------------------------------------------


def run_list(args: argparse.Namespace) -> int:
    path, output = image_of(paths_of(args), args.image), output_of(args)
    image = read_image(path, lambda _: False)
    if output.json != "off":
        output.data(_as_json(image))
        return OK
    lines: list[str] = []
    for number, segment in enumerate(image.segments):
        if output.legend:
            lines.append(paint(_headline(number, segment), BOLD, output.style))
        lines += [_file_line(e) if args.long else clean(e.path) for e in segment.entries]
    output.lines(lines)
    for path in image.opaque:
        output.note(f"{clean(path)} is a file system of its own, which is not looked into")
    return OK


def _headline(number: int, segment: Segment) -> str:
    count, size = len(segment.entries), segment.end - segment.offset
    return (
        f"segment {number}: {segment.kind} at {segment.offset}, {size} bytes, {count} file{'' if count == 1 else 's'}"
    )


def _file_line(entry: Entry) -> str:
    target = f" -> {clean(entry.content.decode('utf-8', 'replace'))}" if entry.is_symlink and entry.content else ""
    return f"{stat.filemode(entry.mode)} {entry.size:>10} {clean(entry.path)}{target}"


def _as_json(image: Image) -> dict[str, Any]:
    return {
        "image": image.path,
        "made_by": made_by(image),
        "opaque": [_text(p) for p in image.opaque],
        "segments": [
            {"offset": s.offset, "end": s.end, "kind": s.kind, "files": [_entry_json(e) for e in s.entries]}
            for s in image.segments
        ],
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    target = _text(entry.content.decode("utf-8", "surrogateescape")) if entry.is_symlink and entry.content else None
    mode = f"{stat.S_IMODE(entry.mode):04o}"
    return {"path": _text(entry.path), "kind": kind_of(entry.mode), "mode": mode, "size": entry.size, "target": target}


def _text(name: str) -> str:
    """JSON has no bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# ---- unpack, repack ------------------------------------------------------------------------------


def run_unpack(args: argparse.Namespace) -> int:
    image, output = image_of(paths_of(args), args.image), output_of(args)
    directory = Path(os.path.abspath(args.directory))
    if directory.is_symlink() or (directory.exists() and not (directory.is_dir() and not any(directory.iterdir()))):
        raise UsageError(f"{args.directory} is there, and not an empty directory")
    manifest = unpack_image(image, directory)
    archives = [(part, archive) for part in manifest.parts for archive in part.archives]
    if output.json != "off":
        found = [{"directory": a.directory, "kind": p.kind, "files": len(a.members)} for p, a in archives]
        output.data({"image": image, "directory": str(directory), "archives": found})
    else:
        output.lines([f"{clean(args.directory)}/{a.directory}: {p.kind}, {len(a.members)} files" for p, a in archives])
    return OK


def run_repack(args: argparse.Namespace) -> int:
    output = output_of(args)
    target = Path(os.path.abspath(args.output))
    data = repack_image(Path(args.directory))
    write_file(target, data, mode=stat.S_IMODE(target.stat().st_mode) if target.exists() else IMAGE_MODE)
    if output.json != "off":
        output.data({"image": str(target), "size": len(data)})
    else:
        output.lines([f"Made {clean(args.output)}, {len(data)} bytes."])
    return OK


# ---- restore -------------------------------------------------------------------------------------


def run_restore(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    krel = read_kernel(paths, args.krel).krel
    good, word = _restore(paths, krel)
    if output.json != "off":
        output.data({"krel": krel, "good": good, "word": to_json(word)})
    else:
        output.lines(list(reason_lines(word, output.style, indent="")))
    return OK if good else NOT_READY


def _restore(paths: Paths, krel: str) -> tuple[bool, Reason]:
    """Whether the kernel's modules are in it, and the last word on it."""
    if may_write_spool(paths):
        record = restore_image(paths, load_config(paths), krel, time.time(), _delaying_shutdown)
        assert record.initrd is not None
        return record.initrd_ok, record.initrd
    if not is_daemon_running(paths):
        raise NotAuthorized("put back an initrd")
    from autokmod.ctl import client  # gi is slow to import, and missing in small systems

    done = client.restore_initrd(krel)
    return bool(done["good"]), from_json(Reason, done["word"], "the daemon's answer")


def _delaying_shutdown(krel: str) -> AbstractContextManager[None]:
    try:
        from autokmod.ctl import client  # as above
    except ImportError:
        return nullcontext()
    return client.delaying_shutdown(f"The former initrd of {krel} is being put back")


# ---- overlay -------------------------------------------------------------------------------------


def run_overlay(args: argparse.Namespace) -> int:
    paths, output = paths_of(args), output_of(args)
    krel = read_kernel(paths, args.krel).krel
    image = Path(args.image or image_of(paths, krel))
    conf = read_conf(Path(os.path.abspath(file)) for file in args.modprobe_conf)
    overlay = overlay_by_hand(paths, load_config(paths), krel, image, conf)
    if overlay is None:
        hint = f"'initrd = true' in {paths.inside(paths.packages_d)}/NAME.toml says that a package's modules do"
        raise UsageError(f"no module of autokmod belongs in the initrd of {krel}: {hint}")
    write_file(Path(os.path.abspath(args.output)), overlay.data, mode=IMAGE_MODE)
    if output.json != "off":
        output.data({"file": args.output, "image": str(image), "size": len(overlay.data), "modules": overlay.modules})
    else:
        output.lines([f"Made {clean(args.output)}, {len(overlay.data)} bytes, with {', '.join(overlay.modules)}."])
    return OK
