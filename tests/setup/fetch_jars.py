"""Fetches the jars of a lock file from Maven Central, where Maven itself isn't installed.

fetch_jars.py LOCK DIR: LOCK holds lines `sha256  group:artifact[:type:classifier]:version`. The caller checks the sums.
"""

import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor

from maven_artifact.artifact import Artifact
from maven_artifact.downloader import Downloader

lock, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])


def fetch(coordinate: str) -> None:
    artifact = Artifact.parse(coordinate)
    classifier = f"-{artifact.classifier}" if artifact.classifier else ""
    name = f"{artifact.artifact_id}-{artifact.version}{classifier}.{artifact.extension}"
    Downloader().download(artifact, str(folder / name))


folder.mkdir(parents=True, exist_ok=True)
coordinates = [line.split()[1] for line in lock.read_text().splitlines() if line.strip()]
with ThreadPoolExecutor(4) as pool:
    list(pool.map(fetch, coordinates))
