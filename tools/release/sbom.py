"""The bill of materials of an image, as CycloneDX: Debian packages, Python, and Python distributions.

    podman export CONTAINER | python -m tools.release.sbom > image.cdx.json

Reads a container's file system from standard input, as `docker export` and `podman export` write it.
"""

import re
import sys
import tarfile
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from typing import IO, Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

_OURS: Final = "bits-auth-proxy"
_PYTHON: Final = re.compile(rb"^version = ([0-9.]+)$", re.MULTILINE)
_RELEASE: Final = re.compile(rb'^(ID|VERSION_ID)="?([^"\n]+)"?$', re.MULTILINE)


def bill_of_materials(archive: IO[bytes]) -> Bom:
    """Return the bill of materials of the file system in a tar archive."""
    bom = Bom()
    distro, packages = "", []
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            name = "/" + member.name.removeprefix("./")
            if name.endswith(".dist-info/METADATA"):
                component = _distribution(BytesParser().parsebytes(file.read(), headersonly=True))
                if component.name == _OURS:
                    bom.metadata.component = component
                else:
                    bom.components.add(component)
            elif name.startswith("/var/lib/dpkg/status.d/"):
                packages.append(BytesParser().parsebytes(file.read(), headersonly=True))
            elif name.endswith("/pyvenv.cfg"):
                bom.components.update(_python(file.read()))
            elif name == "/usr/lib/os-release":
                distro = "-".join(value.decode() for _, value in sorted(_RELEASE.findall(file.read())))
    bom.components.update(_debian_package(package, distro) for package in packages)
    if bom.metadata.component is None:
        raise LookupError(f"{_OURS} is not in this image")
    bom.register_dependency(bom.metadata.component, bom.components)
    return bom


def _distribution(metadata: Message) -> Component:
    name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()
    licence = metadata["License-Expression"] or metadata["License"]
    return Component(
        name=name,
        version=metadata["Version"],
        type=ComponentType.APPLICATION if name == _OURS else ComponentType.LIBRARY,
        bom_ref=f"python:{name}",
        description=metadata["Summary"],
        licenses=[LicenseFactory().make_from_string(licence)] if licence else (),
        purl=PackageURL("pypi", None, name, metadata["Version"]),
    )


def _python(environment: bytes) -> Iterator[Component]:
    for version in _PYTHON.findall(environment):
        text = version.decode()
        yield Component(
            name="python",
            version=text,
            type=ComponentType.PLATFORM,
            bom_ref="interpreter",
            cpe=f"cpe:2.3:a:python:python:{text}:*:*:*:*:*:*:*",
            purl=PackageURL("generic", None, "python", text),
        )


def _debian_package(status: Message, distro: str) -> Component:
    qualifiers = {"arch": status["Architecture"], "distro": distro}
    return Component(
        name=status["Package"],
        version=status["Version"],
        type=ComponentType.LIBRARY,
        bom_ref=f"debian:{status['Package']}",
        purl=PackageURL("deb", "debian", status["Package"], status["Version"], qualifiers),
    )


def as_json(bom: Bom) -> str:
    """Return a bill as CycloneDX 1.6."""
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_json(bill_of_materials(sys.stdin.buffer)))
