"""The sources of the pictures: pinned packages with their checksums, styles and licences.

Only artwork under MIT or Apache-2.0 or in the public domain is listed. The licence of the artwork decides, not only
that of the package. `download.py` fetches a package, and `readers.py` opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LICENCES = Path(__file__).parent / "licences"
APACHE, MIT, PUBLIC = "Apache-2.0", "MIT", "public domain"


@dataclass(frozen=True)
class Package:
    """A file of a public package registry.

    Attributes:
        name: name of the package, with its scope.
        version: the only version that is used.
        integrity: `sha512-` and the digest in base64, as npm writes it, or `sha256-` and the digest in hexadecimal, as
            Debian writes it.
        registry: "npm" or "debian".
        path: path of the file below the registry's address.
    """

    name: str
    version: str
    integrity: str
    registry: str = "npm"
    path: str = ""

    @property
    def address(self) -> str:
        """Path of the package's file below the registry's address."""
        return self.path or f"{self.name}/-/{self.name.split('/')[-1]}-{self.version}.tgz"

    @property
    def file(self) -> str:
        """Name of the package's file in the cache."""
        ending = "deb" if self.registry == "debian" else "tgz"
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version.replace('+', '.')}.{ending}"


@dataclass(frozen=True)
class Style:
    """A style in which pictures are drawn.

    Attributes:
        name: short name, used in options and columns.
        words: name used in captions and answers.
        family: family of the style. Styles of one family share the outlines of their drawings; combinations are held
            out by family.
    """

    name: str
    words: str
    family: str


@dataclass(frozen=True)
class Source:
    """The pictures of one package.

    Attributes:
        name: name of the source, used in the report.
        style: name of the style.
        package: see `Package`.
        reader: a key of `readers.READERS`.
        licence: licence of the artwork.
        text: file in `licences/` with the text of the licence.
        holder: who drew the artwork.
        origin: where the licence is stated.
    """

    name: str
    style: str
    package: Package
    reader: str
    licence: str
    text: str
    holder: str
    origin: str


STYLES = {
    style.name: style
    for style in (
        Style("noto", "Noto", "noto"),
        Style("noto-v1", "classic Noto", "noto-v1"),
        Style("flat", "flat", "fluent"),
        Style("high-contrast", "high-contrast", "fluent"),
        Style("3d", "3D", "fluent"),
        Style("phosphor", "Phosphor", "phosphor"),
        Style("openclipart", "clip art", "openclipart"),
    )
}

NAMES = Package(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
"""Labels, keywords, groups and skin tones of all emoji (MIT)."""

SOURCES = (
    Source(
        "noto",
        "noto",
        Package(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        "iconify",
        APACHE,
        "noto.txt",
        "Google, Inc.",
        "svg/LICENSE of googlefonts/noto-emoji",
    ),
    Source(
        "noto-flags",
        "noto",
        Package(
            "emoji-datasource-google",
            "16.0.0",
            "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
        ),
        "flags",
        APACHE,
        "noto.txt",
        "Google, Inc.",
        "README of emoji-datasource-google: images under Apache-2.0; googlefonts/noto-emoji states that its flags are "
        "in the public domain or exempt from copyright",
    ),
    Source(
        "noto-v1",
        "noto-v1",
        Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        ),
        "iconify",
        APACHE,
        "noto.txt",
        "Google, Inc.",
        "svg/LICENSE of googlefonts/noto-emoji",
    ),
    Source(
        "flat",
        "flat",
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        "iconify",
        MIT,
        "fluent.txt",
        "Microsoft Corporation",
        "LICENSE of microsoft/fluentui-emoji",
    ),
    Source(
        "high-contrast",
        "high-contrast",
        Package(
            "@iconify-json/fluent-emoji-high-contrast",
            "1.2.6",
            "sha512-esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
        ),
        "iconify",
        MIT,
        "fluent.txt",
        "Microsoft Corporation",
        "LICENSE of microsoft/fluentui-emoji",
    ),
    Source(
        "3d",
        "3d",
        Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        ),
        "hexadecimal",
        MIT,
        "fluent.txt",
        "Microsoft Corporation; packaged by LobeHub",
        "LICENSE of microsoft/fluentui-emoji, package.json of @lobehub/fluent-emoji-3d",
    ),
    Source(
        "phosphor",
        "phosphor",
        Package(
            "@iconify-json/ph",
            "1.2.2",
            "sha512-PgkEZNtqa8hBGjHXQa4pMwZa93hmfu8FUSjs/nv4oUU6yLsgv+gh9nu28Kqi8Fz9CCVu4hj1MZs9/60J57IzFw==",
        ),
        "phosphor",
        MIT,
        "phosphor.txt",
        "Phosphor Icons",
        "LICENSE of phosphor-icons/core",
    ),
    Source(
        "openclipart",
        "openclipart",
        Package(
            "openclipart-svg",
            "0.18+dfsg-19",
            "sha256-989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
            "debian",
            "pool/main/o/openclipart/openclipart-svg_0.18+dfsg-19_all.deb",
        ),
        "clipart",
        PUBLIC,
        "openclipart.txt",
        "the artists of Open Clip Art Library",
        "debian/copyright of openclipart; each picture states it too",
    ),
)
