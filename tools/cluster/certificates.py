"""The keys and certificates of one control plane, made with openssl in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .words import run

DAYS = "365"
REMEDY = "install OpenSSL 3 (Debian: apt-get install openssl)"

# Debian's own settings would make every certificate that `req -x509` signs an authority.
SETTINGS = "[req]\ndistinguished_name = name\n[name]\n"


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs for one control plane; its own certificate is what clients trust."""

    def __init__(self, folder: Path) -> None:
        """Makes the authority's key and certificate in `folder`, which is made too."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        (folder / "openssl.cnf").write_text(SETTINGS)
        self.pair = self._make(
            "ca",
            "/CN=leanmodel-test-authority",
            ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"],
        )

    def client(self, name: str, user: str, groups: Iterable[str] = ()) -> Pair:
        """Returns a client's certificate: Kubernetes reads the user from CN and the groups from O."""
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        return self._make(name, subject, ["extendedKeyUsage=clientAuth"], signed=True)

    def server(self, name: str, hosts: Iterable[str], addresses: Iterable[str]) -> Pair:
        """Returns a server's certificate for names and IP addresses; it serves as a client's too."""
        alternatives = ",".join([*(f"DNS:{host}" for host in hosts), *(f"IP:{a}" for a in addresses)])
        extensions = ["extendedKeyUsage=serverAuth,clientAuth", f"subjectAltName={alternatives}"]
        return self._make(name, f"/CN={name}", extensions, signed=True)

    def signing_key(self, name: str) -> Path:
        """Returns a private key without a certificate, as service account tokens are signed with."""
        path = self.folder / f"{name}.key"
        # Of the forms that openssl writes, the API server reads the public half out of this older one alone.
        run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path)],
            remedy=REMEDY,
        )
        path.chmod(0o600)
        return path

    def _make(self, name: str, subject: str, extensions: list[str], *, signed: bool = False) -> Pair:
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        command: list[str | Path] = [
            "openssl",
            "req",
            "-x509",
            "-config",
            self.folder / "openssl.cnf",
            "-nodes",
            "-days",
            DAYS,
        ]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject]
        command += ["-keyout", pair.key, "-out", pair.certificate]
        if signed:
            command += ["-CA", self.pair.certificate, "-CAkey", self.pair.key]
            extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=digitalSignature", *extensions]
        for extension in extensions:
            command += ["-addext", extension]
        run(command, remedy=REMEDY)
        return pair
