"""Find Java and keep one copy of Apache Kafka's jars in the user's cache directory.

Called by `kafka_cluster` in whatever process starts a cluster. Maven fetches the jars from Maven
Central once; every later start needs neither Maven nor a network.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
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


def find_java() -> str:
    """Return the ``java`` to run: JAVA_HOME's, else the one on PATH.

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
    version = java_version(shown.stderr + shown.stdout)
    if version is None or version < JAVA_VERSION_MIN:
        found = "cannot tell its version" if version is None else f"is version {version}"
        raise KafkaError(f"Kafka {KAFKA_VERSION} needs Java 17, and {java} {found}: {JAVA_HINT}")
    return java


def java_version(text: str) -> int | None:
    """Return the major version in what ``java -version`` printed (8 for "1.8.0_372")."""
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(match[1]) if match else None


def _find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaError(f"Kafka's jars are fetched once with `mvn`, which is missing: {MAVEN_HINT}")
    return maven


def jars_directory() -> Path:
    """Return the directory that holds the jars, whether it exists yet or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "kqmp" / f"kafka-{KAFKA_VERSION}"


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
        options = ["-B", "--strict-checksums", "-f", str(pom)]
        goal = [DEPENDENCY_PLUGIN, "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        try:
            done = subprocess.run(
                [maven, "-q", *options, *goal],
                capture_output=True,
                text=True,
                timeout=FETCH_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KafkaError(f"fetching Kafka with mvn took over {FETCH_TIMEOUT_S} s") from None
        if done.returncode != 0 or not (jars / f"kafka_{SCALA_VERSION}-{KAFKA_VERSION}.jar").exists():
            errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
            reason = errors[0][8:] if errors else f"exit code {done.returncode}"
            raise KafkaError(f"mvn could not fetch Kafka {KAFKA_VERSION}: {reason}")
        jars.rename(directory)


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
