"""Where raw data come from: registry with SHA-256 and licence, local folder first."""

import csv
import gzip
import io
import os
import sys
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from orbitdiff.errors import BadInput

__all__ = ["DATA_VARIABLE", "SOURCES", "Source", "data_root", "read_source"]

DATA_VARIABLE = "ORBITDIFF_DATA"
GITHUB = "https://raw.githubusercontent.com"
CDVAE = f"{GITHUB}/txie-93/cdvae/f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea/data/perov_5"
WYCKOFF = f"{GITHUB}/SymmetryAdvantage/WyckoffTransformer/507e8f147a0e87905c2574ebfbbfc9fa21c2fb09"
TIMEOUT = 60


@dataclass(frozen=True)
class Source:
    """One raw file of a data set.

    Parameters
    ----------
    name : str
        Name in `data/raw/{dataset}/`, unpacked.
    path : str
        Packed file below `$ORBITDIFF_DATA`.
    sha256 : str
        Of the unpacked bytes, those of a csv after `canonical`, so that a copy and a download
        are the same.
    licence : str
    origin : str
        Repository and path of the public file.
    url : str or None
        Public address (packed where it ends in .gz); None where the public files do not
        hold these rows as one file.
    """

    name: str
    path: str
    sha256: str
    licence: str
    origin: str
    url: str | None = None


CA_TRACES = Source(
    "ca_traces.npz",
    "proteins/ca_traces.npz",
    "5435a1c3e1ad6df428e20dce0d208e75c5472323a6427d941ab3430cd778007e",
    "coordinates of the Protein Data Bank (CC0 1.0; cite wwPDB)",
    "2,417 chains of 40 to 256 residues, one per cluster of 70 % identity",
)

SOURCES: dict[str, tuple[Source, ...]] = {
    "pdb_64": (CA_TRACES,),
    "pdb_256": (CA_TRACES,),
    "perov_5": (
        Source(
            "train_head1024.csv",
            "crystals/perov_5/train_head1024.csv.gz",
            "8f5fed06d6438c584c93aca8151b256d2d0ce41564ae14d9aae0e1eb0a56f73e",
            "MIT",
            "txie-93/cdvae data/perov_5_dev/train.csv",
            f"{GITHUB}/txie-93/cdvae/307861da36a6c5be29e68d3685f0d824dfd6e281"
            "/data/perov_5_dev/train.csv",
        ),
        Source(
            "val.csv",
            "crystals/perov_5/val.csv.gz",
            "fe2447be92efce169c1d3947cc2f640e9f0b951becdbe0d6bed46c3bca22bfdf",
            "MIT",
            "txie-93/cdvae data/perov_5/val.csv",
            f"{CDVAE}/val.csv",
        ),
        Source(
            "test.csv",
            "crystals/perov_5/test.csv.gz",
            "1d3abade59606d5f4c7d223d020a0362a1af2500d3b6181aae0bef229ae13207",
            "MIT",
            "txie-93/cdvae data/perov_5/test.csv",
            f"{CDVAE}/test.csv",
        ),
    ),
    "mp_20": (
        Source(
            "train_part.csv",
            "crystals/mp_20/train_part.csv.gz",
            "8726cf00bb5d78a8a21cf57988c9ab68fce690c90214566a3b66e5beb3c5e1bf",
            "Materials Project CC BY 4.0",
            "xiaohang007/SLICES MatterGPT/raw_mp20_dataset_mini.csv (rows 1-2,573) and "
            "OPRYAN90/cdvae data/mp_20/train.csv (847 rows)",
        ),
        Source(
            "mpts52_le20_extra.csv",
            "crystals/mp_20/mpts52_le20_extra.csv.gz",
            "3989bfc492037aba4e6b9ea354f7dd7ec7413776f40bfa83b634600fcde23bda",
            "Apache-2.0; Materials Project CC BY 4.0",
            "SymmetryAdvantage/WyckoffTransformer data/mpts_52/{val,test}.csv.gz (3,176 rows)",
        ),
        Source(
            "val_other.csv",
            "crystals/mp_20/val_other.csv.gz",
            "84fe0a68e255ac22ae087f100a595d5401d3099aad78f416072a0edd2cf3394d",
            "MIT; Materials Project CC BY 4.0",
            "OPRYAN90/cdvae data/mp_20/val.csv (25 rows)",
        ),
        Source(
            "test_other.csv",
            "crystals/mp_20/test_other.csv.gz",
            "484136ee448b4b83470afe5ca2fbaf0ecb0fdf3dd4afbcd70501b349fd54ba93",
            "MIT; Materials Project CC BY 4.0",
            "gabeguo/cdvae_xrd and OPRYAN90/cdvae data/mp_20/test.csv (279 rows)",
        ),
        Source(
            "binary_ternary_val.csv",
            "crystals/mp_20_binary_ternary/val.csv.gz",
            "1f13f9e70d51247fe657afe9925cb1c48d32299598dac54916c9538d887960d6",
            "Apache-2.0; Materials Project CC BY 4.0",
            "SymmetryAdvantage/WyckoffTransformer data/mp_20_biternary/val.csv.gz",
            f"{WYCKOFF}/data/mp_20_biternary/val.csv.gz",
        ),
        Source(
            "binary_ternary_test.csv",
            "crystals/mp_20_binary_ternary/test.csv.gz",
            "6066df327be2cec83605b7a7e23be04f6370398206366874e313078f72663969",
            "Apache-2.0; Materials Project CC BY 4.0",
            "SymmetryAdvantage/WyckoffTransformer data/mp_20_biternary/test.csv.gz",
            f"{WYCKOFF}/data/mp_20_biternary/test.csv.gz",
        ),
    ),
    "geom_qm9": (
        Source(
            "xtb_train.jsonl",
            "geom_qm9/xtb_train.jsonl.gz",
            "8e3fa170c079017cdc89e0d44e7971ee70e75acfbdf000eed0701556f6a17113",
            "SMILES of QM9 (CC0), coordinates computed for this project",
            "`orbitdiff prepare conformers --from SMILES --level xtb` on 10,088 molecules of QM9",
        ),
        Source(
            "xtb_test.jsonl",
            "geom_qm9/xtb_test.jsonl.gz",
            "67adc849ce76f73340a95424e089acc602a99409d05adeee7e572c0821a50f50",
            "SMILES of GEOM-QM9 (MIT), coordinates computed for this project",
            "the same on 500 of the 1,000 official test molecules of GEOM-QM9",
        ),
    ),
}


def data_root() -> Path | None:
    """Folder with `crystals/`: $ORBITDIFF_DATA, else `../shared/data` beside the repository.

    Returns
    -------
    Path or None
        None where neither exists.

    Raises
    ------
    BadInput
        The variable is set, but names no folder.
    """
    named = os.environ.get(DATA_VARIABLE)
    if named:
        root = Path(named)
        if not root.is_dir():
            raise BadInput(f"expected {DATA_VARIABLE} to name a folder, got {named!r}")
        return root
    for base in (Path(__file__).resolve().parents[2], Path.cwd()):
        root = base.parent / "shared" / "data"
        if (root / "crystals").is_dir():
            return root
    return None


def read_source(source: Source, root: Path | None) -> bytes:
    """Return the unpacked bytes of a source (a csv made canonical), its SHA-256 checked.

    Parameters
    ----------
    source : Source
    root : Path or None
        From `data_root`; the file there is preferred to a download.

    Raises
    ------
    BadInput
        Not there and not to be had, truncated, or other bytes than registered.
    """
    local = None if root is None else root / source.path
    if local is not None and local.is_file():
        packed, found_at = local.read_bytes(), str(local)
    elif source.url is not None:
        packed, found_at = download(source), source.url
    else:
        raise BadInput(
            f"{source.name} is not published as one file (it comes from {source.origin}); "
            f"{how_to(source)}"
        )
    content = unpack(packed, found_at)
    if source.name.endswith(".csv"):
        content = canonical(content, found_at)
    digest = sha256(content).hexdigest()
    if digest != source.sha256:
        raise BadInput(
            f"expected sha256 {source.sha256} of the rows of {found_at}, got {digest}: "
            f"the file is damaged or another version; {how_to(source)}"
        )
    return content


def how_to(source: Source) -> str:
    """Say in words how to get the file."""
    return (
        f"set {DATA_VARIABLE} to a folder that holds {source.path}, "
        "or use the built-in data of preset `demo`, which needs none"
    )


def download(source: Source) -> bytes:
    """Fetch the public file."""
    assert source.url is not None
    try:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as response:
            content: bytes = response.read()
            return content
    except (urllib.error.URLError, OSError) as error:
        raise BadInput(
            f"could not download {source.url} ({error}); are you offline? {how_to(source)}"
        ) from error


def unpack(packed: bytes, found_at: str) -> bytes:
    """Gunzip where the bytes are gzip."""
    if packed[:2] != b"\x1f\x8b":
        return packed
    try:
        return gzip.decompress(packed)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{found_at} is truncated ({error}); copy or download it again") from error


def canonical(content: bytes, found_at: str) -> bytes:
    """Write a csv anew, without the row-number column that some copies carry."""
    csv.field_size_limit(sys.maxsize)
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{found_at} is no readable csv ({error})") from error
    header = rows[0] if rows else []
    kept = [index for index, name in enumerate(header) if name not in ("", "index")]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([row[index] for index in kept if index < len(row)] for row in rows)
    return out.getvalue().encode("utf-8")
