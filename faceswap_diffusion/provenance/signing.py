"""Whose key signs Content Credentials: the user's, or one that is made on this machine and that nobody trusts."""

import logging
import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from faceswap_diffusion.writing import whole_file

logger = logging.getLogger(__name__)

CERTIFICATE, KEY, TIME_STAMPS = (f"FACESWAP_DIFFUSION_C2PA_{name}" for name in ("CERT", "KEY", "TIMESTAMP_URL"))
"""Environment variables: PEM files of the certificate chain and its P-256 key, and a time-stamp server, if any."""

LOCAL_NAME = "local key of faceswap-diffusion, untrusted"
LIFETIME = timedelta(days=3650)
BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class Signing:
    """What signs.

    Args:
        certificates (`bytes`): PEM, the signer's own first.
        key (`bytes`): PEM of its P-256 key.
        time_stamp_url (`bytes`, *optional*): A server that says when; the network is left alone without it.
    """

    certificates: bytes
    key: bytes
    time_stamp_url: bytes | None = None


def choose_signing() -> Signing | None:
    """The user's certificate and key if the environment names them, or else the local ones; `None` without a place.

    Raises:
        ValueError: If only one of certificate and key is named, or one cannot be read.
    """
    certificate, key = os.environ.get(CERTIFICATE), os.environ.get(KEY)
    if bool(certificate) != bool(key):
        raise ValueError(f"only one of {CERTIFICATE} and {KEY} is given: Content Credentials need both (--c2pa-cert, "
                         "--c2pa-key)")  # fmt: skip
    url = os.environ.get(TIME_STAMPS)
    try:
        if certificate and key:
            certificates, secret = Path(certificate).read_bytes(), Path(key).read_bytes()
        else:
            secret, _, rest = local_pem().partition(BEGIN_CERTIFICATE)
            certificates = BEGIN_CERTIFICATE + rest
    except OSError as error:
        if certificate:
            raise ValueError(
                f"cannot read {error.filename}: {error.strerror}; check --c2pa-cert and --c2pa-key"
            ) from None
        logger.warning(
            f"no Content Credentials: a local key cannot be kept in {local_path().parent} ({error.strerror})"
        )
        return None
    return Signing(certificates, secret, url.encode() if url else None)


def local_path() -> Path:
    """Where the local key and its certificates are kept."""
    settings = os.environ.get("XDG_CONFIG_HOME")
    return (Path(settings) if settings else Path.home() / ".config") / "faceswap-diffusion" / "c2pa.pem"


def local_pem() -> bytes:
    """The local key and its certificates, made at first use."""
    path = local_path()
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.touch(mode=0o600)
            unfinished.write_bytes(_make_pem())
    return path.read_bytes()


def _make_pem() -> bytes:
    """A key, its certificate, and that of the authority that issued it, of which nobody keeps the key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def usage(**used: bool) -> x509.KeyUsage:
        names = (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        )  # fmt: skip
        return x509.KeyUsage(**{name: used.get(name, False) for name in names})

    def name(text: str) -> x509.Name:
        attributes = ((NameOID.ORGANIZATION_NAME, "nobody in particular"), (NameOID.COMMON_NAME, text))
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])

    now, root_name = datetime.now(timezone.utc) - timedelta(minutes=5), name(f"authority of the {LOCAL_NAME}")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def begin(subject: x509.Name, of: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(root_name, subject, of.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + LIFETIME)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)

    root = begin(root_name, root_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    root = root.add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
    own = begin(name(LOCAL_NAME), key).add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    own = own.add_extension(usage(digital_signature=True), critical=True)
    own = own.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    own = own.add_extension(issuer, critical=False)
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    signed = [builder.sign(root_key, hashes.SHA256()).public_bytes(pem) for builder in (own, root)]
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password) + b"".join(signed)
