"""Where the client's id and secret come from, and noticing that they were rotated."""

from pathlib import Path
from typing import Final, NamedTuple

from pydantic import SecretStr

from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.settings.permissions import readable_by_others

_MAX_SIZE: Final = 64 * 1024
_READS: Final = 3
"""How often to read a pair anew that was swapped in between."""


class Credentials(NamedTuple):
    """A client's id and secret."""

    client_id: str
    client_secret: SecretStr


class CredentialsError(Exception):
    """The credentials can't be read. The text names the variable and the file, and no content."""


class CredentialSource:
    """Reads the credentials, from values or files."""

    def __init__(
        self,
        *,
        client_id: str | None = None,
        client_secret: SecretStr | None = None,
        client_id_file: Path | None = None,
        client_secret_file: Path | None = None,
    ) -> None:
        """Take a value or a file for each of the two."""
        self._id = client_id
        self._secret = client_secret
        self._id_file = client_id_file
        self._secret_file = client_secret_file
        self._last: Credentials | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "CredentialSource":
        """Return the source that the settings describe."""
        if settings.credentials_dir is not None:
            return cls(
                client_id_file=settings.credentials_dir / "client_id",
                client_secret_file=settings.credentials_dir / "client_secret",
            )
        return cls(
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            client_id_file=settings.client_id_file,
            client_secret_file=settings.client_secret_file,
        )

    @property
    def watched(self) -> bool:
        """Whether there are files that may change."""
        return self._id_file is not None or self._secret_file is not None

    def read(self) -> Credentials:
        """Return the credentials as they are now. Raises CredentialsError."""
        self._last = self._read()
        return self._last

    def poll(self) -> Credentials | None:
        """Return the credentials if they have changed since they were last returned.

        Raises CredentialsError while a file is missing, empty or not readable: a rotation may be half
        done, and what was read before may still be good.
        """
        if not self.watched:
            return None
        credentials = self._read()
        if credentials == self._last:
            return None
        self._last = credentials
        return credentials

    def exposed_files(self) -> list[Path]:
        """Return the secret's file if any user of this machine may read it."""
        path = self._secret_file
        return [path] if path is not None and readable_by_others(path) else []

    def _read(self) -> Credentials:
        # Kubernetes swaps a directory under both files at once: never pair an old id with a new secret.
        for _ in range(_READS):
            before = self._places()
            credentials = self._read_once()
            if self._places() == before:
                break
        else:
            raise CredentialsError("the credential files keep changing")
        return credentials

    def _read_once(self) -> Credentials:
        client_id = _content("BITS_CLIENT_ID_FILE", self._id_file) if self._id_file else self._id
        secret = self._secret
        if self._secret_file is not None:
            secret = SecretStr(_content("BITS_CLIENT_SECRET_FILE", self._secret_file))
        if client_id is None or secret is None:
            raise CredentialsError("BITS_CLIENT_ID, BITS_CLIENT_SECRET: both are required")
        return Credentials(client_id, secret)

    def _places(self) -> list[str]:
        return [str(path.resolve()) for path in (self._id_file, self._secret_file) if path is not None]


def _content(variable: str, path: Path) -> str:
    """Return a file's text without the line's end."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise CredentialsError(f"{variable}: {path} can't be read: {error.strerror}") from None
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        # Not `from` that one: it holds the content.
        text = ""
    if not text or not text.isprintable() or len(data) > _MAX_SIZE:
        raise CredentialsError(f"{variable}: {path} must contain one line of text")
    return text
