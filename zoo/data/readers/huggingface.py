"""Datasets of the Hugging Face Hub, through the optional `datasets` package."""

from __future__ import annotations

from typing import Any

from zoo.data.labels import encode_labels
from zoo.data.reader import Address, Reader
from zoo.data.readers.parquet import BytesImages, find_columns
from zoo.errors import DataError, HubError, UnknownNameError


def parse_address(address: str) -> tuple[str, str | None, str | None]:
    """`hf:org/name[@revision][:config]` -> (repository, revision, config)."""
    path, _, config = address.removeprefix("hf:").partition(":")
    name, _, revision = path.partition("@")
    if not name:
        raise UnknownNameError(f"{address!r} names no dataset; expected hf:org/name[@revision][:config]")
    return name, revision or None, config or None


def huggingface_splits(address: str) -> list[str]:
    """Names of the splits. Raises as `open_huggingface`."""
    name, revision, config = parse_address(address)
    return list(_ask(address, lambda hub: hub.get_dataset_split_names(name, config, revision=revision)))


def open_huggingface(address: str, split: str) -> BytesImages:
    """Open one split; images stay encoded on disk until they are asked for.

    Raises:
        DataError: `datasets` is not installed, or the dataset has no image column.
        UnknownNameError: the Hub has no such dataset or config.
        HubError: the Hub cannot be reached.
    """
    name, revision, config = parse_address(address)
    splits = _ask(address, lambda hub: hub.load_dataset(name, config, revision=revision))
    data = splits[split]
    columns = find_columns(data.features.arrow_schema, address)
    values = {key: _labels(part, address) for key, part in splits.items()}
    labels, names = encode_labels(values, split, columns.class_names, address)
    images = data.select_columns([columns.image]).with_format("arrow")

    def fetch(row: int) -> bytes | None:
        cell = images[row].column(columns.image)[0].as_py()
        return cell["bytes"] if columns.nested else cell

    files = [file["filename"] for file in data.cache_files]
    licence = data.info.license or "unknown"
    return BytesImages(name.split("/")[-1].lower(), split, len(data), labels, names, fetch, files, licence)


def _labels(part: Any, address: str) -> list[Any] | None:
    label = find_columns(part.features.arrow_schema, address).label
    return None if label is None else list(part[label])


def _ask(address: str, question: Any) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f'{address} needs the package datasets: pip install "encoder-zoo[datasets]"') from None
    try:
        return question(datasets)
    except FileNotFoundError as error:  # DatasetNotFoundError is one
        raise UnknownNameError(f"{address} does not exist or is private ({_line(error)})") from error
    except (OSError, ConnectionError) as error:
        raise HubError(f"{address} cannot be fetched ({_line(error)}); check the network or HF_HUB_OFFLINE") from error
    except ValueError as error:  # an unknown config: the message lists those there are
        raise UnknownNameError(f"{address}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class HuggingFace(Reader):
    """`hf:org/name[@revision][:config]`."""

    example = "'hf:org/name'"

    @classmethod
    def recognises(cls, address: Address) -> bool:
        return not address.is_path and address.text.startswith("hf:")

    def splits(self) -> list[str]:
        return huggingface_splits(self.address.text)

    def open(self, split: str) -> BytesImages:
        return open_huggingface(self.address.text, split)
