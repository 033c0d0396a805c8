"""Write a wheel again so that its bytes depend on nothing but its files.

    python3 repack.py WHEEL FOLDER

What tools leave to chance is settled: the order of members and of RECORD's lines (that of a folder
on disk), time stamps (SOURCE_DATE_EPOCH), permissions, compression. Contents stay as they are.
"""

import os
import stat
import sys
import time
import zipfile

EARLIEST = 315532800  # 1980, where the format begins


def main(wheel, folder):
    epoch = max(int(os.environ["SOURCE_DATE_EPOCH"]), EARLIEST)
    moment = time.gmtime(epoch)[:6]
    target = os.path.join(folder, os.path.basename(wheel))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w") as new:
        members = [item for item in old.infolist() if not item.is_dir()]
        for item in sorted(members, key=lambda member: (is_metadata(member), member.filename)):
            executable = (item.external_attr >> 16) & stat.S_IXUSR
            entry = zipfile.ZipInfo(item.filename, moment)
            entry.create_system = 3  # Unix: permissions count
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = item.file_size  # decides whether the entry is a large one
            if item.filename.endswith(".dist-info/RECORD"):
                lines = sorted(old.read(item).splitlines(keepends=True))
                new.writestr(entry, b"".join(lines))
                continue
            with old.open(item) as source, new.open(entry, "w") as sink:
                while piece := source.read(1 << 20):
                    sink.write(piece)


def is_metadata(member):
    """`.dist-info` comes last in a wheel, RECORD at its very end."""
    name = member.filename
    return (".dist-info/" in name) + name.endswith(".dist-info/RECORD")


if __name__ == "__main__":
    main(*sys.argv[1:])
