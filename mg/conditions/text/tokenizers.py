"""Tokenizers of pretrained text encoders, from files in their folder."""

from collections.abc import Callable
from pathlib import Path

from mg.conditions.text.byte_encoder import byte_ids
from mg.conditions.text.extra import needs_text_extra
from mg.quiet_imports import quiet_imports

__all__ = ["load_tokenizer", "tokenizer_files", "tokenizer_folder"]

# Kind of encoder -> files of its tokenizer, best first; none are needed for bytes.
TOKENIZER_FILES = {
    "t5": (("tokenizer.json",), ("spiece.model",)),
    "clip": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    "llama": (("tokenizer.json",),),
    "byt5": ((),),
}


def tokenizer_folder(kind: str, folder: Path) -> Path:
    """Return the folder with an encoder's tokenizer: its own, or the one that diffusers puts there.

    Args:
        kind: of encoder, "t5", "byt5", "clip" or "llama".
        folder: of the encoder; beside `text_encoder_2` there may be `tokenizer_2`.
    """
    beside = folder.parent / folder.name.replace("text_encoder", "tokenizer")
    if beside == folder or not beside.is_dir():
        return folder
    names = {name for files in TOKENIZER_FILES[kind] for name in files}
    return folder if any((folder / name).is_file() for name in names) else beside


def tokenizer_files(kind: str, folder: Path) -> list[Path]:
    """Return the files of a folder from which the tokenizer is made.

    Args:
        kind: of encoder, "t5", "byt5", "clip" or "llama".
        folder: of the encoder.

    Raises:
        FileNotFoundError: the folder has no tokenizer.
    """
    for names in TOKENIZER_FILES[kind]:
        files = [folder / name for name in names]
        if all(file.is_file() for file in files):
            return files
    choices = ", or ".join(" and ".join(names) for names in TOKENIZER_FILES[kind])
    raise FileNotFoundError(
        f"{folder} holds no tokenizer for a {kind} encoder; put {choices} beside its weights"
    )


def load_tokenizer(kind: str, folder: Path) -> Callable[[str], list[int]]:
    """Return a function from a text to its token ids, marks of start and end included.

    Args:
        kind: of encoder, "t5", "byt5", "clip" or "llama".
        folder: of the encoder.

    Raises:
        FileNotFoundError: the folder has no tokenizer.
        ValueError: its files are damaged, or do not end texts with a mark.
    """
    files = tokenizer_files(kind, folder)
    if not files:
        return byte_ids
    readers = {
        "tokenizer.json": _read_json,
        "spiece.model": _read_sentencepiece,
        "vocab.json": _read_vocabulary,
    }
    try:
        ids_of = readers[files[0].name](*files)
        num_of_empty = len(ids_of(""))
    # The packages have no common class of errors; tokenizers raises Exception itself.
    except Exception as error:
        names = " and ".join(str(file) for file in files)
        raise ValueError(f"{names}: not a tokenizer that can be read: {error}") from error
    if num_of_empty == 0:
        raise ValueError(f"{files[0]}: this tokenizer does not end texts with a mark (EOS)")
    return ids_of


def _read_json(path: Path) -> Callable[[str], list[int]]:
    with needs_text_extra():
        from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    # How the encoder pads and what is too long is decided elsewhere, whatever the file says.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: tokenizer.encode(text).ids


def _read_sentencepiece(path: Path) -> Callable[[str], list[int]]:
    with needs_text_extra():
        from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=path.read_bytes())
    if processor.eos_id() < 0:
        raise ValueError("it has no mark of the end (EOS)")
    return lambda text: [*processor.encode(text), processor.eos_id()]


def _read_vocabulary(vocabulary: Path, merges: Path) -> Callable[[str], list[int]]:
    with needs_text_extra(), quiet_imports():
        from transformers import CLIPTokenizerFast

        tokenizer = CLIPTokenizerFast(vocab_file=str(vocabulary), merges_file=str(merges))
    return lambda text: tokenizer(text)["input_ids"]
