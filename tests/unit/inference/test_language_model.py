"""The small language model: really trained, deterministic, made of its data, and safe to load."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.errors import Invalid, Malformed, WharfingerError
from wharfinger.inference.language import CONFIG, VOCABULARY, WEIGHTS, LanguageModel, load, pieces, train

SENTENCES = [
    "The wharfinger keeps the wharf.",
    "A crane lifts the heavy cargo.",
    "The keeper weighs every crate of tea.",
]
TEXTS = {f"part-{n}.txt": "\n".join(SENTENCES[(n + i) % 3] for i in range(40)) for n in range(6)}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Return a model of the sentences."""
    return train(TEXTS)


@given(st.text())
def test_pieces_joined_are_the_text(text: str) -> None:
    """Nothing of a text is lost by cutting it into tokens."""
    assert "".join(pieces(text)) == text


def test_the_same_data_gives_the_same_bytes_and_other_data_others() -> None:
    """A model's digest speaks of its data: equal for equal data in any order of files, else different."""
    again = train(dict(reversed(TEXTS.items()))).files()
    assert again == train(TEXTS).files()
    other = train({**TEXTS, "part-0.txt": TEXTS["part-0.txt"].replace("tea", "salt")}).files()
    assert other[WEIGHTS] != again[WEIGHTS]


def test_every_distribution_sums_to_one(model: LanguageModel) -> None:
    """After any history, seen or not, probabilities are positive and sum to 1."""
    for text in ("", "The", "The wharfinger keeps", "zebra quantum", "crane lifts the heavy"):
        probability = model.distribution(model.encode(text))
        assert probability.min() > 0
        assert np.isclose(probability.sum(), 1.0)


def test_it_has_learned(model: LanguageModel) -> None:
    """Text like the data is far likelier than the same words in another order."""
    said = model.perplexity("The wharfinger keeps the wharf.\nA crane lifts the heavy cargo.")
    shuffled = model.perplexity("heavy the keeps crane wharf.\nThe A lifts cargo the wharfinger.")
    assert said * 5 < shuffled


def test_its_answers_come_from_the_data_and_speak_of_the_prompt(model: LanguageModel) -> None:
    """Each run of three tokens of an answer stands in the data, which begins at the prompt's rarest word."""
    answer = "".join(model.generate("what does the wharfinger do?", most=20, temperature=0, seed=3))
    assert "wharfinger" in answer
    data = "\n".join(TEXTS.values())
    words = pieces(answer)
    assert all("".join(words[i : i + 3]) in data for i in range(len(words) - 3))


def test_the_same_seed_gives_the_same_answer(model: LanguageModel) -> None:
    """Sampling rolls dice that the caller holds."""
    said = ["".join(model.generate("crane", most=30, temperature=1.0, seed=s)) for s in (1, 1, 2, 3, 4, 5)]
    assert said[0] == said[1]
    assert len(set(said)) > 1


def test_saved_and_loaded_it_says_the_same(model: LanguageModel) -> None:
    """The files hold all of the model."""
    again = load(model.files())
    assert again.files() == model.files()
    assert again.perplexity("The crane.") == model.perplexity("The crane.")


def test_too_little_to_learn_from_is_refused() -> None:
    """A handful of words makes no model."""
    with pytest.raises(Invalid, match="at least 1000"):
        train({"a": "too short"})


@settings(max_examples=150)
@given(
    name=st.sampled_from([WEIGHTS, VOCABULARY, CONFIG]),
    at=st.integers(min_value=0, max_value=600),
    bit=st.integers(0, 7),
)
def test_damaged_files_give_a_model_or_our_error(model: LanguageModel, name: str, at: int, bit: int) -> None:
    """Whatever bit is flipped, loading returns a usable model or raises `Malformed`."""
    files = dict(model.files())
    data = bytearray(files[name])
    data[at % len(data)] ^= 1 << bit
    files[name] = bytes(data)
    try:
        made = load(files)
    except Malformed:
        return
    try:
        "".join(made.generate("crane", most=3))
    except WharfingerError:
        return


def test_a_missing_file_is_named(model: LanguageModel) -> None:
    """A model without its vocabulary is refused by name."""
    files = {name: data for name, data in model.files().items() if name != VOCABULARY}
    with pytest.raises(Malformed, match=VOCABULARY):
        load(files)


def test_tokens_beyond_the_vocabulary_are_refused(model: LanguageModel) -> None:
    """Weights that point outside the words would be read past their end: they are not loaded."""
    files = dict(model.files())
    files[VOCABULARY] = json.dumps(["", "", "one"]).encode()
    with pytest.raises(Malformed, match="vocabulary"):
        load(files)
