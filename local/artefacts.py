"""What `sam build` made: the size of every artefact against Lambda's limit, and the processor it was made for.

`python -m local.artefacts` prints the table at the end of `make build`. It exits with 1 where a function and its layers
are larger than Lambda takes, or where a native module is not for the processor that the build was to be for: such a
stack deploys, and then no function can be imported. The built template is left with this one processor to choose.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from local import samconfig

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".aws-sam" / "build"

MB = 1024 * 1024
LIMIT = 250 * MB  # of a function and its layers together, unpacked ("Lambda quotas")
DEFAULT_ARCHITECTURE = "x86_64"
# e_machine in the header of an ELF file ("System V ABI", and its supplement for AArch64).
MACHINES = {0x3E: "x86_64", 0xB7: "arm64"}


# As `sam build` writes the parameter.
_ARCHITECTURE = re.compile(
    r"^(  Architecture:\n    Type: String)\n    Default: \S+\n    AllowedValues:\n(?:    - \S+\n)+", re.MULTILINE
)


class ArtefactError(Exception):
    """The build can't be deployed as it is; the message is the line that the user reads."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """One function or layer: sizes in bytes, and the processors that its native modules are for."""

    name: str
    layers: tuple[str, ...]
    unpacked: int
    zipped: int
    architectures: frozenset[str]


def read(build: Path) -> list[Artefact]:
    """Every function and layer of a build folder, layers first. Raises ArtefactError where there is no build."""
    template = build / "template.yaml"
    if not template.is_file():
        raise ArtefactError(f"{build} holds no build: run make build")
    from samtranslator.yaml_helper import yaml_parse

    resources: Mapping[str, Any] = yaml_parse(template.read_text(encoding="utf-8"))["Resources"]
    found: list[Artefact] = []
    for name, resource in resources.items():
        folder = _folder(build, resource)
        if folder is None:
            continue
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        found.append(
            Artefact(
                name=name,
                layers=tuple(_layers(resource)),
                unpacked=sum(path.stat().st_size for path in files),
                zipped=_zipped(folder, files),
                architectures=frozenset(filter(None, map(architecture, files))),
            )
        )
    return sorted(found, key=lambda artefact: (artefact.layers != (), artefact.name))


def architecture(path: Path) -> str | None:
    """The processor that a native module is for, as Lambda names it; None of any other file."""
    with path.open("rb") as file:
        header = file.read(20)
    if header[:4] != b"\x7fELF":
        return None
    machine = int.from_bytes(header[18:20], "little")
    return MACHINES.get(machine, hex(machine))


def together(artefact: Artefact, artefacts: list[Artefact]) -> int:
    """The bytes that Lambda counts of a function: its own and those of its layers, unpacked.

    A layer that is not in the build, because a parameter names it, is not counted.
    """
    sizes = {other.name: other.unpacked for other in artefacts}
    return artefact.unpacked + sum(sizes.get(layer, 0) for layer in artefact.layers)


def check(artefacts: list[Artefact], expected: str) -> None:
    """Raises ArtefactError where Lambda would refuse the build, or could not run it on the processor `expected`."""
    for artefact in artefacts:
        if wrong := artefact.architectures - {expected}:
            raise ArtefactError(
                f"{artefact.name} is built for {', '.join(sorted(wrong))}, and the functions run on {expected}: "
                f"make build ARCHITECTURE={expected}"
            )
        size = together(artefact, artefacts)
        if size > LIMIT:
            raise ArtefactError(
                f"{artefact.name} and its layers have {size / MB:.1f} MB unpacked; Lambda takes {LIMIT // MB}"
            )


def table(artefacts: list[Artefact]) -> str:
    """The lines that `make build` ends with. Sizes are in kB of 1,024 bytes, rounded up."""
    rows = [("artefact", "for", "zipped kB", "unpacked kB", "with its layers", f"of {LIMIT // MB} MB")]
    for artefact in artefacts:
        size = together(artefact, artefacts)
        whole, share = (_kb(size), f"{size / LIMIT:.1%}") if artefact.layers else ("", "")
        kind = ", ".join(sorted(artefact.architectures)) or "any"
        rows.append((artefact.name, kind, _kb(artefact.zipped), _kb(artefact.unpacked), whole, share))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [str.ljust, str.ljust, *[str.rjust] * 4]
    return "\n".join(
        "  ".join(align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True)).rstrip()
        for row in rows
    )


def _kb(size: int) -> str:
    return f"{-(-size // 1024):,}"


def architecture_of(environment: str, path: Path = samconfig.SAMCONFIG) -> str:
    """The processor that an environment of samconfig.toml is deployed for. Raises SamconfigError where it has none."""
    return samconfig.read(environment, path).parameters.get("Architecture", DEFAULT_ARCHITECTURE)


def fix_architecture(build: Path, architecture: str) -> None:
    """Let the built template be deployed for the processor that the layers are for, and for no other.

    Raises ArtefactError where the template has no such parameter.
    """
    path = build / "template.yaml"
    text = path.read_text(encoding="utf-8")
    fixed, found = _ARCHITECTURE.subn(
        rf"\g<1>\n    Default: {architecture}\n    AllowedValues:\n    - {architecture}\n", text
    )
    if found != 1:
        raise ArtefactError(f"{path.name} of the build has no parameter Architecture with a default and its values")
    path.write_text(fixed, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Print the table and judge the build, or say which processor an environment is for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local.artefacts", description=__doc__)
    parser.add_argument("build", nargs="?", type=Path, default=BUILD, help="the folder that sam build filled")
    parser.add_argument("--architecture", default=DEFAULT_ARCHITECTURE, help="what the build is to be for")
    parser.add_argument("--architecture-of", metavar="ENVIRONMENT", help="only say what samconfig.toml deploys it for")
    options = parser.parse_args(arguments)
    try:
        if options.architecture_of:
            print(architecture_of(options.architecture_of))
            return 0
        artefacts = read(options.build)
        print(table(artefacts))
        check(artefacts, options.architecture)
        fix_architecture(options.build, options.architecture)
    except (ArtefactError, samconfig.SamconfigError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# ------------------------------------------------------------------ what a build folder holds


def _folder(build: Path, resource: Mapping[str, Any]) -> Path | None:
    keys = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}
    key = keys.get(resource["Type"])
    uri = resource["Properties"].get(key) if key else None
    return build / uri if isinstance(uri, str) else None


def _layers(resource: Mapping[str, Any]) -> Iterator[str]:
    for layer in resource["Properties"].get("Layers", []):
        if isinstance(layer, dict) and "Ref" in layer:
            yield cast("str", layer["Ref"])


def _zipped(folder: Path, files: list[Path]) -> int:
    """The bytes of the archive that is uploaded."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.writestr(str(path.relative_to(folder)), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive.tell()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
