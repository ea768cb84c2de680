"""Find Java and keep one copy of Apache Kafka's jars in the user's cache directory.

Called by `kafka_cluster` in whatever process starts a cluster. Maven fetches the jars from Maven
Central once; every later start needs neither Maven nor a network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KAFKA_VERSION = "4.3.1"
SCALA_VERSION = "2.13"
#: Kafka's pom names no log4j; slf4j-api 1.7 needs this binder, not log4j-slf4j2-impl.
LOG4J_VERSION = "2.25.3"
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.10.0:copy-dependencies"
ARTIFACTS = (
    ("org.apache.kafka", f"kafka_{SCALA_VERSION}", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-core", LOG4J_VERSION),
)
#: Kafka 4 brokers need 17 (KIP-1013).
JAVA_VERSION_MIN = 17
#: 44 MB take 5 s on a fast line; a guess for a slow one.
FETCH_TIMEOUT_S = 900

JAVA_HINT = (
    "install Java 17 or newer (Debian/Ubuntu: apt-get install openjdk-17-jre-headless, "
    "or openjdk-21-jre-headless where 17 is not packaged)"
)
MAVEN_HINT = "install Maven (Debian/Ubuntu: apt-get install maven)"


class KafkaError(Exception):
    """A cluster cannot be started, reached or stopped; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that can run Kafka."""

    path: str
    #: Names this build of the JVM; another build cannot use the class archive of this one.
    key: str


def missing_tools() -> str | None:
    """Say in one line what must be installed before a cluster can start; None if nothing.

    Maven counts only while the jars are not in the cache yet. Runs ``java -version`` (0.1 s).
    """
    try:
        find_java()
        if not jars_directory().is_dir():
            _find_maven()
    except KafkaError as error:
        return str(error)
    return None


def find_java() -> Java:
    """Return the Java to run: JAVA_HOME's, else the one on PATH. Runs it once (0.1 s).

    Raises:
        KafkaError: there is none, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        place = f"in JAVA_HOME ({home})" if home else "on PATH"
        raise KafkaError(f"Kafka needs Java, and there is no `java` {place}: {JAVA_HINT}")
    try:
        shown = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KafkaError(f"`{java} -version` does not run ({error}): {JAVA_HINT}") from None
    text = shown.stderr + shown.stdout
    version = java_version(text)
    if version is None or version < JAVA_VERSION_MIN:
        found = "does not tell its version" if version is None else f"is version {version}"
        raise KafkaError(f"Kafka {KAFKA_VERSION} needs Java 17, and {java} {found}: {JAVA_HINT}")
    # Absolute, as the broker runs in another directory than this process.
    java = str(Path(java).absolute())
    return Java(java, hashlib.sha256(f"{java}\n{text}".encode()).hexdigest()[:12])


def java_version(text: str) -> int | None:
    """Return the major version in what ``java -version`` printed (8 for "1.8.0_372")."""
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(match[1]) if match else None


def _find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaError(f"Kafka's jars come by `mvn` once, and it is not on PATH: {MAVEN_HINT}")
    return maven


def jars_directory() -> Path:
    """Return the directory that holds the jars, whether it exists yet or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache).absolute() / "kqmp" / f"kafka-{KAFKA_VERSION}"


def class_path(say: Callable[[str], None]) -> str:
    """Return Kafka's class path, fetching the jars first if the cache has none.

    Two processes may call this at once: one fetches, the other waits. A fetch that is cut short
    leaves nothing that a later start could take for whole.

    Args:
        say: told in one line before a fetch, which takes seconds to minutes.

    Raises:
        KafkaError: Maven is missing or failed.
    """
    directory = jars_directory()
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with locked(directory.with_name(f"{directory.name}.lock")):
            if not directory.is_dir():
                say(f"fetching Apache Kafka {KAFKA_VERSION} from Maven Central into {directory}")
                _fetch(directory)
    return ":".join(sorted(str(jar) for jar in directory.glob("*.jar")))


def _fetch(directory: Path) -> None:
    maven = _find_maven()
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=directory.parent) as scratch:
        pom = Path(scratch, "pom.xml")
        pom.write_text(render_pom(), encoding="utf-8")
        jars = Path(scratch, "jars")
        options = ["-q", "-B", "--strict-checksums", "-f", str(pom)]
        goal = [DEPENDENCY_PLUGIN, "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        command = [maven, *options, *goal]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise KafkaError(f"fetching Kafka with mvn took over {FETCH_TIMEOUT_S} s") from None
        broker = jars / f"kafka_{SCALA_VERSION}-{KAFKA_VERSION}.jar"
        if done.returncode != 0 or not broker.exists():
            raise KafkaError(
                f"mvn could not fetch Kafka {KAFKA_VERSION} from Maven Central: {maven_error(done)}"
            )
        jars.rename(directory)


def maven_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of Maven's output that says what went wrong."""
    for line in done.stdout.splitlines():
        text = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if text.startswith("[ERROR] "):
            return text.removeprefix("[ERROR] ")
    return f"exit code {done.returncode}"


def class_archive(java: Java, rehearse: Callable[[Path], None]) -> Path | None:
    """Return an archive of Kafka's classes for this JVM (AppCDS), making it once if need be.

    It makes one node start in 1.6 s instead of 2.7 s, three in 6 s instead of 10 s (2 cores).

    Args:
        java: the JVM that will use it.
        rehearse: runs a broker that writes the archive to the path given to it, and ends it; it may
            raise KafkaError or write none.

    Returns:
        None if this JVM cannot make one; Kafka only starts slower then.
    """
    archive = jars_directory() / f"java-{java.key}.jsa"
    if not archive.exists():
        with locked(archive.with_suffix(".lock")):
            if not archive.exists():
                partial = archive.with_suffix(".partial")
                partial.unlink(missing_ok=True)
                # What else is wrong with this JVM shows when the real node starts.
                with contextlib.suppress(KafkaError):
                    rehearse(partial)
                # An empty file says that it was tried, so that not every start tries it again.
                partial.touch()
                partial.rename(archive)
    return archive if archive.stat().st_size > 0 else None


def render_pom() -> str:
    """Return the pom whose runtime dependencies are a whole Kafka broker."""
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in ARTIFACTS
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>kqmp</groupId><artifactId>broker</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>\n"
    )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if missing); the kernel frees it if we die.

    Blocking: until the holder is done.
    """
    with path.open("a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
