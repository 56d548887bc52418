"""The certificate of this process, and TLS with exactly one peer.

The certificate says nothing about who this is: the link over which it is sent
has proven that. So it is made anew by every process, its key never stays on a
disk, and its dates don't matter, whatever the peer's clock says.
"""

from __future__ import annotations

import secrets
import ssl
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sleap_rtc.errors import ProtocolError

_FROM: Final = datetime(2000, 1, 1, tzinfo=UTC)
_UNTIL: Final = datetime(9999, 12, 31, tzinfo=UTC)


class Identity:
    """A key and its certificate, made anew; it takes a moment. The key is in no ``repr``."""

    def __init__(self) -> None:
        # A tenth of a second, for processes that make direct connections alone.
        from cryptography import x509  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import NameOID  # noqa: PLC0415

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sleap-rtc")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_FROM)
            .not_valid_after(_UNTIL)
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        """X.509 in DER."""
        self._password = secrets.token_bytes(32)
        # OpenSSL takes keys from files alone: what is on the disk for a moment is encrypted.
        self._pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(self._password),
        )

    def tls(self, *, peer: bytes, listens: bool) -> ssl.SSLContext:
        """TLS 1.3 with the peer that has exactly this certificate. Blocking.

        Args:
            peer: The peer's certificate, DER.
            listens: Whether this side is the one that is connected to.

        Raises:
            ProtocolError: That is no certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if listens else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if listens:
            context.num_tickets = 0  # a connection that is lost is announced anew
        try:
            context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(peer))
        except (ssl.SSLError, ValueError) as error:
            raise ProtocolError(peer="The other side", why=f"no certificate ({error})") from None
        with tempfile.TemporaryDirectory(prefix="sleap-rtc-") as folder:
            path = Path(folder) / "own.pem"
            path.write_bytes(self._pem)
            context.load_cert_chain(path, password=self._password)
        return context


def is_peer(connection: ssl.SSLSocket, certificate: bytes) -> bool:
    """Whether the other end showed this certificate, byte for byte."""
    shown = connection.getpeercert(binary_form=True)
    return shown is not None and secrets.compare_digest(shown, certificate)
