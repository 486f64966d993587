"""Certificates that OpenSSL's own verification accepts, and keys that only their owner reads."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from e2e.controlplane.kubeconfig import certificate_user, token_user, write_kubeconfig
from e2e.controlplane.pki import KeyPair, Pki


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "pki")


def handshake(pki: Pki, server: KeyPair, client: KeyPair | None, host: str) -> str:
    """Return the common name of the client that the server saw, or raise what the handshake raised."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server.certificate, server.key)
    accepting.load_verify_locations(pki.ca.certificate)
    accepting.verify_mode = ssl.CERT_OPTIONAL
    asking = ssl.create_default_context(cafile=str(pki.ca.certificate))
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    if client:
        asking.load_cert_chain(client.certificate, client.key)
    left, right = socket.socketpair()
    seen: list[str] = []

    def serve() -> None:
        try:
            with accepting.wrap_socket(left, server_side=True) as connection:
                peer = connection.getpeercert() or {}
                seen.append(json.dumps(peer.get("subject")))
                connection.sendall(b"!")
        except OSError:
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with right, asking.wrap_socket(right, server_hostname=host) as connection:
            connection.recv(1)
    finally:
        thread.join()
    return seen[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.96.0.1"])
def test_a_server_is_trusted_under_each_of_its_names(pki: Pki, host: str) -> None:
    server = pki.issue_server("server", ["127.0.0.1", "localhost", "10.96.0.1"])
    client = pki.issue_client("admin", "somebody", ["system:masters"])
    subject = handshake(pki, server, client, host)
    assert "somebody" in subject
    assert "system:masters" in subject


def test_a_server_is_not_trusted_under_another_name(pki: Pki) -> None:
    server = pki.issue_server("server", ["127.0.0.1"])
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        handshake(pki, server, None, "10.96.0.1")


def test_another_authority_is_not_trusted(pki: Pki, tmp_path: Path) -> None:
    stranger = Pki.create(tmp_path / "other").issue_server("server", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(pki, stranger, None, "localhost")


def test_every_private_key_is_readable_by_its_owner_only(pki: Pki) -> None:
    pki.issue_client("admin", "somebody")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in pki.directory.glob("*.key")}
    assert modes == {"ca.key": 0o600, "admin.key": 0o600, "service-account.key": 0o600}
    assert stat.S_IMODE(pki.directory.stat().st_mode) == 0o700


def test_keys_are_of_the_kinds_that_kubernetes_reads(pki: Pki) -> None:
    authority = serialization.load_pem_private_key(pki.ca.key.read_bytes(), None)
    signing = serialization.load_pem_private_key(pki.service_account_key.read_bytes(), None)
    public = serialization.load_pem_public_key(pki.service_account_public_key.read_bytes())
    assert isinstance(authority, ec.EllipticCurvePrivateKey)
    assert authority.curve.name == "secp256r1"
    assert isinstance(signing, rsa.RSAPrivateKey)
    assert signing.key_size == 2048
    assert public == signing.public_key()


def test_only_the_authority_may_sign(pki: Pki) -> None:
    leaf = x509.load_pem_x509_certificate(pki.issue_client("a", "a").certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(pki.ca.certificate.read_bytes())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "stowage-test-ca"


def test_a_kubeconfig_is_private_and_complete(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("an older one that everybody may read")
    path.chmod(0o644)
    write_kubeconfig(path, "https://127.0.0.1:1", pki.ca.certificate, token_user("secret"), "team")
    content = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert content["users"][0]["user"] == {"token": "secret"}
    assert content["contexts"][0]["context"]["namespace"] == "team"
    user = certificate_user(pki.issue_client("admin", "somebody"))
    assert set(user) == {"client-certificate-data", "client-key-data"}
