"""The upstream client and TLS, with a certificate authority made on the spot."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.upstreams.client import ConnectFailed, Target, UpstreamClient, make_ssl_context
from tests.proxy.raw_server import Peer, raw_server, until


def make_certificate(folder: Path, *, name: str) -> tuple[Path, Path]:
    """A self-signed certificate that is its own authority, and the file with its key too."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca_file, both_file = folder / f"{name}.ca.pem", folder / f"{name}.pem"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    both_file.write_bytes(private + ca_file.read_bytes())
    return ca_file, both_file


def server_context(both_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both_file)
    return context


async def ask(client: UpstreamClient, target: Target) -> tuple[int, bytes, bool]:
    response = await client.send(
        target, b"GET", b"/", [], b"", connect_timeout_seconds=5, headers_timeout_seconds=5
    )
    return response.status, await response.read_all(10_000, 5), response.is_reused


async def answer_each(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def test_tls_is_spoken_with_a_peer_that_proves_its_name(tmp_path: Path) -> None:
    ca_file, both_file = make_certificate(tmp_path, name="localhost")
    client = UpstreamClient(
        connections_max=2, idle_seconds=60, ssl_context=make_ssl_context(str(ca_file))
    )

    async with raw_server(answer_each, tls=server_context(both_file)) as server:
        assert await ask(client, server.target) == (200, b"ok", False)
        assert await ask(client, server.target) == (200, b"ok", True)
        await client.close()
        await until(lambda: client.open_connections == 0)


@pytest.mark.parametrize("name", ["localhost", "other.test"])
async def test_tls_is_refused_where_name_or_authority_are_wrong(tmp_path: Path, name: str) -> None:
    ca_file, both_file = make_certificate(tmp_path, name=name)
    trusted = str(ca_file) if name == "other.test" else None
    client = UpstreamClient(
        connections_max=2, idle_seconds=60, ssl_context=make_ssl_context(trusted)
    )

    async with raw_server(answer_each, tls=server_context(both_file)) as server:
        with pytest.raises(ConnectFailed, match="SSLCertVerificationError"):
            await ask(client, server.target)

    assert client.open_connections == 0


@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
def test_a_client_that_does_not_verify_cannot_be_made(mode: ssl.VerifyMode) -> None:
    context = make_ssl_context()
    context.check_hostname = False
    context.verify_mode = mode

    with pytest.raises(ValueError, match="must be verified"):
        UpstreamClient(connections_max=1, idle_seconds=1, ssl_context=context)
