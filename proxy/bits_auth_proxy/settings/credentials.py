"""The client's id and secret: reading them from values or files, and noticing that the files have changed."""

import codecs
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import SecretStr

from bits_auth_proxy.errors import SettingError
from bits_auth_proxy.files import is_utf16, read_file
from bits_auth_proxy.settings.disclosure import shown_path
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.settings.permissions import readable_by_others

_MAX_SIZE: Final = 64 * 1024
_QUOTES: Final = frozenset(('""', "''", "``", "\u201c\u201d", "\u2018\u2019", "\u201e\u201c", "\u00ab\u00bb"))
"""Pairs of them, as keyboards and word processors write them."""
_READS: Final = 3
"""How many times to read a pair whose files are swapped meanwhile."""


class Credentials(NamedTuple):
    """A client's id and secret."""

    client_id: str
    client_secret: SecretStr


class CredentialsError(SettingError):
    """Unreadable credentials. The text names the variable and the file, and never quotes the content."""


class CredentialSource:
    """Reads the credentials from values or files."""

    def __init__(
        self,
        *,
        client_id: str | None = None,
        client_secret: SecretStr | None = None,
        client_id_file: Path | None = None,
        client_secret_file: Path | None = None,
        read: Callable[[Path], bytes] = read_file,
    ) -> None:
        """Take either a value or a file for the id, and likewise for the secret; `read` raises OSError."""
        self._read_file = read
        self._id = client_id
        self._secret = client_secret
        self._id_file = client_id_file
        self._secret_file = client_secret_file
        self._last: Credentials | None = None
        self._marked: set[Path] = set()
        """The files that begin with a byte order mark."""

    @classmethod
    def from_settings(cls, settings: Settings) -> "CredentialSource":
        """Return the source that the settings name."""
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

    @property
    def name(self) -> str:
        """The files, in messages: each with its variable."""
        files = (("BITS_CLIENT_ID_FILE", self._id_file), ("BITS_CLIENT_SECRET_FILE", self._secret_file))
        return ", ".join(f"{variable}: {shown_path(path)}" for variable, path in files if path is not None)

    def read(self) -> Credentials:
        """Return the credentials as they are now. Blocks as long as a mount does. Raises CredentialsError."""
        self._last = self._read()
        return self._last

    def poll(self) -> Credentials | None:
        """Return the credentials if they have changed since they were last returned.

        Raises CredentialsError while a file is missing, empty or unreadable. A rotation may be half done
        then, and what was read before may still be valid.
        """
        if not self.watched:
            return None
        credentials = self._read()
        if credentials == self._last:
            return None
        self._last = credentials
        return credentials

    def oddities(self, credentials: Credentials) -> list[str]:
        """Return what makes a valid pair look like a slip. No text quotes the pair."""
        found = []
        for variable, path, text in (
            ("BITS_CLIENT_ID", self._id_file, credentials.client_id),
            ("BITS_CLIENT_SECRET", self._secret_file, credentials.client_secret.get_secret_value()),
        ):
            place = variable if path is None else f"{variable}_FILE: {path}"
            if text[:1] + text[1:][-1:] in _QUOTES:
                found.append(f"{place}: the value is in quotes, which are sent as part of it")
            if path in self._marked:
                found.append(f"{place}: the byte order mark at the start is not part of the value")
            if variable == "BITS_CLIENT_ID" and ":" in text:
                found.append(f"{place}: the value contains a colon, where HTTP Basic ends an id (RFC 7617)")
        return found

    def exposed_files(self) -> list[Path]:
        """Return the secret's file if every user of this machine may read it."""
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
        client_id = self._content("BITS_CLIENT_ID_FILE", self._id_file) if self._id_file else self._id
        secret = self._secret
        if self._secret_file is not None:
            secret = SecretStr(self._content("BITS_CLIENT_SECRET_FILE", self._secret_file))
        if client_id is None or secret is None:
            raise CredentialsError("BITS_CLIENT_ID, BITS_CLIENT_SECRET: both are required")
        return Credentials(client_id, secret)

    def _places(self) -> list[str]:
        # Unlike Path.resolve, this takes links that lead in a circle.
        return [os.path.realpath(path) for path in (self._id_file, self._secret_file) if path is not None]

    def _content(self, variable: str, path: Path) -> str:
        """Return a file's one line of text, without its end."""
        try:
            data = self._read_file(path)
        except OSError as error:
            text = f"{variable}: {shown_path(path)} can't be read: {error.strerror}"
            raise CredentialsError(text) from None
        if is_utf16(data):
            raise CredentialsError(f"{variable}: {path} is encoded in UTF-16; save it as UTF-8")
        if data.startswith(codecs.BOM_UTF8):
            self._marked.add(path)
        else:
            self._marked.discard(path)
        try:
            text = data.removeprefix(codecs.BOM_UTF8).decode().strip()
        except UnicodeDecodeError:
            # Raised below, outside of this block: the decoding error holds the content.
            text = ""
        if not text or not text.isprintable() or len(data) > _MAX_SIZE:
            raise CredentialsError(f"{variable}: {path} must contain one line of text")
        return text
