"""Keys and certificates of one throw-away cluster, made in memory by `cryptography`: no openssl needed.

Elliptic-curve keys (P-256) everywhere, RSA-2048 only for signing service-account tokens, as clients expect.
Private keys are written with mode 0600 and must never leave the cluster's state directory.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(hours=1)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of a PEM certificate and of its PEM private key (mode 0600)."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Pki:
    """The certificate authority of one cluster, kept in `directory`."""

    directory: Path

    @property
    def ca(self) -> KeyPair:
        """The authority that every component and kubeconfig trusts."""
        return self.pair("ca")

    @property
    def service_account_key(self) -> Path:
        """The private key that signs service-account tokens."""
        return self.directory / "service-account.key"

    @property
    def service_account_public_key(self) -> Path:
        """The public key that service-account tokens are checked with."""
        return self.directory / "service-account.pub"

    @classmethod
    def create(cls, directory: Path) -> Pki:
        """Make a new authority and the service-account keys in `directory`, which is created."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        pki = cls(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stowage-test-ca")])
        certificate = (
            _builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        pki._write("ca", certificate, key)
        signing_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(pki.service_account_key, _private_pem(signing_key))
        public = signing_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        pki.service_account_public_key.write_bytes(public)
        return pki

    def pair(self, name: str) -> KeyPair:
        """Return the paths of the pair called `name`, whether or not it was made yet."""
        return KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")

    def issue_client(self, name: str, user: str, groups: Sequence[str] = ()) -> KeyPair:
        """Make a client certificate: `user` becomes the common name, `groups` the organisations."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        return self._issue(name, x509.Name(attributes), ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def issue_server(self, name: str, hosts: Sequence[str]) -> KeyPair:
        """Make a serving certificate for `hosts`: IP addresses and DNS names, at least one."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._issue(name, subject, ExtendedKeyUsageOID.SERVER_AUTH, hosts)

    def _issue(
        self, name: str, subject: x509.Name, usage: x509.ObjectIdentifier, hosts: Sequence[str]
    ) -> KeyPair:
        authority = x509.load_pem_x509_certificate(self.ca.certificate.read_bytes())
        signer = serialization.load_pem_private_key(self.ca.key.read_bytes(), password=None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.ca.key}: not an elliptic-curve key")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, authority.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return self._write(name, builder.sign(signer, hashes.SHA256()), key)

    def _write(self, name: str, certificate: x509.Certificate, key: PrivateKey) -> KeyPair:
        pair = self.pair(name)
        write_private(pair.key, _private_pem(key))
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
