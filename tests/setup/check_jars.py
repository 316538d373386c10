"""Checks a folder of jars against a lock file: every jar of the lock is there with its SHA-256, and no other.

What is said of jars goes for archives of another type too.

check_jars.py LOCK DIR [--update]: --update writes LOCK from DIR and the local Maven repository instead.
"""

import hashlib
import pathlib
import sys


def name_of(coordinate: str) -> str:
    parts = coordinate.split(":")
    kind, classifier = (parts[2], f"-{parts[3]}") if len(parts) == 5 else ("jar", "")
    return f"{parts[1]}-{parts[-1]}{classifier}.{kind}"


def sum_of(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def coordinate_of(jar: pathlib.Path, repository: pathlib.Path) -> str:
    found = next(repository.rglob(jar.name)).relative_to(repository).parts
    version, artifact, group = found[-2], found[-3], ".".join(found[:-3])
    # `-classifier.type` or `.type`; a type may be `tar.gz`, and no classifier of ours has a dot.
    classifier, kind = jar.name.removeprefix(f"{artifact}-{version}").lstrip("-").split(".", 1)
    return f"{group}:{artifact}:{kind}:{classifier}:{version}" if classifier else f"{group}:{artifact}:{version}"


lock, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
jars = sorted(folder.glob("*"))
if "--update" in sys.argv:
    repository = pathlib.Path.home() / ".m2" / "repository"
    lock.write_text("".join(f"{sum_of(jar)}  {coordinate_of(jar, repository)}\n" for jar in jars))
    sys.exit(0)

expected = {}
for line in lock.read_text().splitlines():
    digest, coordinate = line.split()
    expected[name_of(coordinate)] = digest
problems = [f"{name} is missing" for name in expected if not (folder / name).exists()]
problems += [f"{jar.name} isn't in the lock" for jar in jars if jar.name not in expected]
problems += [
    f"{jar.name} has SHA-256 {sum_of(jar)}, the lock says {expected[jar.name]}"
    for jar in jars
    if jar.name in expected and sum_of(jar) != expected[jar.name]
]
for problem in problems:
    print(f"{lock.parent.name}: {problem}", file=sys.stderr)
sys.exit(1 if problems else 0)
