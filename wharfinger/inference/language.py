"""A small language model that is really trained: interpolated Kneser-Ney n-grams, weights in safetensors.

Small enough to train from half a megabyte of prose on one core in seconds, exact enough to be evaluated honestly
(perplexity on held-out text), and its text is visibly from the data. The vocabulary are the words, numbers, marks and
line breaks of the data, each with the blank before it, so that joining tokens gives text back unchanged.

Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1998), section 2.7:
interpolated Kneser-Ney with one discount per order, D = n1 / (n1 + 2 n2).

Tensors, for each order k from 1 to `ORDER`: `contexts.k` (uint64, sorted hashes of the k-1 tokens before), `starts.k`
(int64, where a context's followers begin), `tokens.k` (int32, followers, sorted within a context), `counts.k` (int32;
at the highest order how often, below in how many contexts), and `discounts` (float64, one per order).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from wharfinger.core.document import parse_json
from wharfinger.core.errors import Invalid, Malformed, WharfingerError

ORDER: Final = 5
WEIGHTS: Final = "model.safetensors"
VOCABULARY: Final = "tokenizer.json"
CONFIG: Final = "config.json"
UNKNOWN: Final = 0
START: Final = 1
_TOKEN = re.compile(r" ?[A-Za-z_][A-Za-z_0-9]*| ?[0-9]+|\n+| +| ?[^\sA-Za-z_0-9]|\s")
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_U64 = NDArray[np.uint64]


def pieces(text: str) -> list[str]:
    """Return the tokens of `text`; joined they are the text again."""
    return _TOKEN.findall(text)


@dataclass(frozen=True, slots=True)
class _Table:
    """One order's counts; see the module's text for the arrays."""

    contexts: _U64
    starts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    counts: NDArray[np.int32]

    def followers(self, context: int) -> slice | None:
        """Return where the followers of the context hash stand, None when it was never seen."""
        index = int(np.searchsorted(self.contexts, np.uint64(context)))
        if index == len(self.contexts) or int(self.contexts[index]) != context:
            return None
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


class LanguageModel:
    """A trained model: `generate` text, `perplexity` of text."""

    def __init__(self, vocabulary: Sequence[str], tables: Sequence[_Table], discounts: Sequence[float]) -> None:
        self._words = list(vocabulary)
        self._ids = {word: index for index, word in enumerate(self._words)}
        self._tables = list(tables)
        self._discounts = list(discounts)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`; a word that training never saw is `UNKNOWN`."""
        return [self._ids.get(piece, UNKNOWN) for piece in pieces(text)]

    def decode(self, token: int) -> str:
        """Return the text of one token; the unknown and the start token have none."""
        return self._words[token] if token > START else ""

    def distribution(self, history: Sequence[int]) -> NDArray[np.float64]:
        """Return the probability of every token after `history` (shape: vocabulary; sums to 1)."""
        size = len(self._words)
        probability = np.full(size, 1.0 / size)
        for order, (table, discount) in enumerate(zip(self._tables, self._discounts, strict=True), start=1):
            if order - 1 > len(history):
                break
            where = table.followers(_hash(history[len(history) - order + 1 :]))
            if where is None:
                break
            counts = table.counts[where].astype(np.float64)
            total = counts.sum()
            probability *= discount * len(counts) / total
            probability[table.tokens[where]] += (counts - discount) / total
        return probability

    def generate(self, prompt: str, *, most: int, temperature: float = 0.7, seed: int = 0) -> Iterator[str]:
        """Yield at most `most` tokens of text that follow `prompt`, the same for the same `seed`.

        `temperature` 0 takes the likeliest token each time. The text starts from the rarest word of the prompt that the
        model knows, so that it speaks of what was asked.
        """
        dice = np.random.default_rng(seed)
        history = [START, *self._opening(prompt)]
        yield from (self.decode(token) for token in history[1 : most + 1])
        for _ in range(most - len(history) + 1):
            probability = self.distribution(history[-(ORDER - 1) :])
            probability[:2] = 0.0
            if temperature <= 0:
                token = int(probability.argmax())
            else:
                sharpened = np.power(probability / probability.max(), 1.0 / temperature)
                sharpened[sharpened < 1e-4] = 0.0
                token = int(dice.choice(len(sharpened), p=sharpened / sharpened.sum()))
            history.append(token)
            yield self.decode(token)

    def perplexity(self, text: str) -> float:
        """Return the perplexity of `text` per token, unknown words included at their probability."""
        tokens = [START, *self.encode(text)]
        if len(tokens) < 2:
            raise Invalid("expected some text to evaluate on, got none")
        total = 0.0
        for index in range(1, len(tokens)):
            history = tokens[max(0, index - ORDER + 1) : index]
            total -= float(np.log(self.distribution(history)[tokens[index]]))
        return float(np.exp(total / (len(tokens) - 1)))

    def count(self, text: str) -> int:
        """Return how many tokens `text` has."""
        return len(pieces(text))

    def files(self) -> dict[str, bytes]:
        """Return the model as the files of its directory; the same model gives the same bytes."""
        tensors: dict[str, NDArray[Any]] = {"discounts": np.array(self._discounts)}
        for order, table in enumerate(self._tables, start=1):
            tensors |= {
                f"contexts.{order}": table.contexts, f"starts.{order}": table.starts,
                f"tokens.{order}": table.tokens, f"counts.{order}": table.counts,
            }  # fmt: skip
        config = {"architecture": "kneser-ney", "order": len(self._tables), "vocabulary": len(self._words)}
        return {
            WEIGHTS: save_tensors(dict(sorted(tensors.items()))),
            VOCABULARY: json.dumps(self._words, ensure_ascii=False, separators=(",", ":")).encode(),
            CONFIG: json.dumps(config, sort_keys=True).encode(),
        }

    def _opening(self, prompt: str) -> list[int]:
        """Return the token that the answer begins with: the prompt's rarest word that starts some text here."""
        unigrams = self._tables[0]
        counts = np.zeros(len(self._words), dtype=np.int64)
        counts[unigrams.tokens] = unigrams.counts
        known = [
            (int(counts[token]), token)
            for word in pieces(prompt)
            if len(word.strip()) > 3
            for token in (self._ids.get(" " + word.strip()), self._ids.get(word.strip().capitalize()))
            if token is not None and counts[token] > 0
        ]
        return [min(known)[1]] if known else []


def train(texts: Mapping[str, str]) -> LanguageModel:
    """Return a model of `texts`, read in the order of their names. Deterministic.

    Raises `Invalid` when they hold fewer than 1,000 tokens: too little to learn from.
    """
    split = [pieces(texts[name]) for name in sorted(texts)]
    if sum(map(len, split)) < 1000:
        raise Invalid(f"expected at least 1000 tokens to learn from, got {sum(map(len, split))}")
    words = ["", "", *sorted({piece for part in split for piece in part})]
    ids = {word: index for index, word in enumerate(words)}
    stream: list[int] = []
    for part in split:
        stream += [START] * (ORDER - 1) + [ids[piece] for piece in part]
    tokens = np.array(stream, dtype=np.int64)
    tables, discounts = [], []
    for order in range(ORDER, 0, -1):
        table = _count(tokens, order, continuation=order < ORDER)
        ones, twos = int((table.counts == 1).sum()), int((table.counts == 2).sum())
        discounts.append(ones / (ones + 2 * twos) if ones else 0.5)
        tables.append(table)
    return LanguageModel(words, tables[::-1], discounts[::-1])


def load(files: Mapping[str, bytes]) -> LanguageModel:
    """Return the model that the files of a directory hold.

    Raises `Malformed` when a file is missing or is not what it should be.
    """
    try:
        words = parse_json(files[VOCABULARY], limit=64 * 1024 * 1024)
        config = parse_json(files[CONFIG])
        tensors = load_tensors(files[WEIGHTS])
        tables = [
            _Table(*(tensors[f"{part}.{order}"] for part in ("contexts", "starts", "tokens", "counts")))
            for order in range(1, int(config["order"]) + 1)
        ]
        discounts = [float(value) for value in tensors["discounts"]]
    except KeyError as error:
        raise Malformed(f"expected a model with {error}") from error
    except (SafetensorError, TypeError, ValueError, WharfingerError) as error:
        raise Malformed(f"expected a model of this format: {type(error).__name__}") from error
    if len(discounts) != len(tables) or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        raise Malformed("expected one discount per order and a list of words")
    for table in tables:
        if len(table.starts) != len(table.contexts) + 1 or len(table.tokens) != len(table.counts):
            raise Malformed("expected tables whose parts fit each other")
        if len(table.tokens) and not 0 <= int(table.tokens.min()) <= int(table.tokens.max()) < len(words):
            raise Malformed("expected token numbers within the vocabulary")
    return LanguageModel(words, tables, discounts)


def read_texts(folder: Path) -> dict[str, str]:
    """Return the text files below `folder` by their relative names, decoded leniently."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _hash(tokens: Sequence[int]) -> int:
    value = 1
    for token in tokens:
        value = ((value ^ (token + 1)) * int(_MULTIPLIER)) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 29
    return value


def _hashes(tokens: NDArray[np.int64], length: int) -> _U64:
    """Return `_hash` of every run of `length` tokens."""
    count = len(tokens) - length + 1
    value = np.ones(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(length):
            value = (value ^ (tokens[offset : offset + count].astype(np.uint64) + np.uint64(1))) * _MULTIPLIER
            value ^= value >> np.uint64(29)
    return value


def _count(tokens: NDArray[np.int64], order: int, *, continuation: bool) -> _Table:
    """Return one order's table; with `continuation` a pair counts once per distinct token before it."""
    followers = tokens[order - 1 :]
    contexts = _hashes(tokens, order - 1)[: len(followers)]
    keep = followers > START
    columns = [contexts, followers.astype(np.uint64)]
    if continuation:
        before = np.zeros(len(followers), dtype=np.uint64)
        before[1:] = tokens[: len(followers) - 1]
        columns.append(before)
    rows = np.stack([column[keep] for column in columns])
    if continuation:
        rows = np.unique(rows, axis=1)[:2]
    pairs, counts = np.unique(rows, axis=1, return_counts=True)
    heads, starts = np.unique(pairs[0], return_index=True)
    return _Table(
        np.ascontiguousarray(heads),
        np.append(starts, len(pairs[0])).astype(np.int64),
        pairs[1].astype(np.int32),
        counts.astype(np.int32),
    )
