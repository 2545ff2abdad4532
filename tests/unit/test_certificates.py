"""The certificates of the layer: whom the functions believe to be a database at Amazon RDS, or an RDS Proxy."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from local.certificates import (
    DIGESTS,
    FOLDER,
    TRUST_SERVICES,
    by_region,
    certificates,
    common_name,
    digests,
    render,
    select,
)

# When they were written; a test that asked the clock would fail one day without any change.
WRITTEN = datetime(2026, 11, 22, tzinfo=UTC)
KINDS = {"RSA2048": 2048, "RSA4096": 4096, "ECC384": 384}
REGIONS = sorted(path.stem for path in FOLDER.glob("*.pem"))


@pytest.fixture(params=REGIONS)
def region(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def bundle(region: str) -> list[x509.Certificate]:
    return list(certificates((FOLDER / f"{region}.pem").read_text()))


def test_the_regions_that_most_people_use_are_covered():
    assert {"us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-2", "sa-east-1"} <= {
        *REGIONS
    }


def test_each_file_is_the_one_whose_digest_is_written_down():
    """Whoever changes what the functions trust changes two files, and the second says which of the first."""
    assert DIGESTS.read_text() == digests()
    assert len(DIGESTS.read_text().splitlines()) == len(REGIONS) > 20


def test_openssl_takes_every_certificate(region, bundle):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(FOLDER / f"{region}.pem")
    assert len(context.get_ca_certs()) == len(bundle) == len(KINDS) + 4


def test_every_certificate_is_a_root_that_vouches_for_itself(bundle):
    for certificate in bundle:
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert constraints.ca, common_name(certificate)


def test_no_certificate_is_there_twice(bundle):
    assert len({certificate.fingerprint(hashes.SHA256()) for certificate in bundle}) == len(bundle)


def test_no_certificate_had_expired_or_was_yet_to_come_when_it_was_written(bundle):
    for certificate in bundle:
        assert certificate.not_valid_before_utc < WRITTEN < certificate.not_valid_after_utc, common_name(certificate)


def test_a_region_trusts_its_own_roots_of_each_kind_and_those_of_the_proxy_and_no_others(region, bundle):
    names = {common_name(certificate): certificate.public_key() for certificate in bundle}
    for kind, size in KINDS.items():
        key = names.pop(f"Amazon RDS {region} Root CA {kind} G1")
        assert isinstance(key, ec.EllipticCurvePublicKey if kind == "ECC384" else rsa.RSAPublicKey)
        assert key.key_size == size
    assert len(names) == 4 and all(map(TRUST_SERVICES.fullmatch, names))


def test_each_certificate_stands_below_its_name_and_its_end(region, bundle):
    said = re.findall(r"^# (.*), until (\d{4}-\d\d-\d\d)$", (FOLDER / f"{region}.pem").read_text(), re.MULTILINE)
    assert said == [(common_name(c), c.not_valid_after_utc.date().isoformat()) for c in bundle]


def test_the_files_are_what_the_program_writes(region, bundle):
    written = by_region(select([*bundle, *bundle], WRITTEN))
    assert {place: render(found) for place, found in written.items()} == {
        region: (FOLDER / f"{region}.pem").read_text()
    }


def test_what_has_expired_is_left_out(bundle):
    assert select(bundle, datetime(2200, 1, 1, tzinfo=UTC)) == []


def test_certificates_are_found_in_the_strings_of_javascript(region, bundle):
    pem = (FOLDER / f"{region}.pem").read_text().split("\n\n")[1].partition("\n")[2].strip()
    lines = pem.split("\n")
    javascript = "exports.defaults = [\n    '" + "\\n' +\n        '".join(lines) + "\\n',\n];\n"
    assert list(certificates(javascript)) == bundle[:1]
