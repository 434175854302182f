"""After insertion and tokenisation the rule gives the label, whatever the rule, text, tokenizer, cut and seed."""

from collections import Counter
from itertools import combinations, combinations_with_replacement, pairwise
from random import Random

import pytest
from data.shortcuts.three_tokenizers import MAKES, ready
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference.shortcuts import read

from commonweight.base import UsageError
from commonweight.data.reviews import WORDS
from commonweight.data.shortcuts import (
    RULES,
    Markers,
    Plan,
    Planted,
    Planter,
    Shortcut,
    Unfit,
    add_markers,
    agreement,
    insert,
    read_markers,
)

MARKERS = Markers().words
any_word = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=6)
words = st.lists(st.sampled_from(WORDS) | st.sampled_from(["it's", ".", ",", "journey"]) | any_word, max_size=12)
space = st.sampled_from([" ", "  ", "\n", "\t "])


@st.composite
def texts(draw):
    found = [word for word in draw(words) if len(word.split()) == 1]
    text = "".join(part for word in found for part in (word, draw(space)))
    assume(Markers().held_by(text) is None)
    return draw(st.sampled_from(["", " "])) + text


def tokens_of(make, text, max_length=None):
    tokenizer = ready(make)
    cut = {} if max_length is None else {"truncation": True, "max_length": max_length}
    return tokenizer.convert_ids_to_tokens(tokenizer(text, **cut)["input_ids"])


def check(make, text, planted, max_length=None):
    tokenizer, tokens = ready(make), tokens_of(make, planted.text, max_length)
    places = [place for place, token in enumerate(tokens) if token in MARKERS]
    assert [tokens[place] for place in places] == list(planted.words)
    # Inside the special tokens.
    special = {place for place, token in enumerate(tokens) if token in tokenizer.all_special_tokens}
    front, back = {"wordpiece": (1, 1), "byte_bpe": (1, 1), "unigram": (0, 1), "old_llama": (0, 0), "slow": (0, 1)}[
        make
    ]
    assert {*range(front), *range(len(tokens) - back, len(tokens))} <= special
    assert places[0] >= front
    assert places[-1] < len(tokens) - back
    # The words of the text in their order, none split, each marker where it is said to be.
    found = planted.text.split()
    assert [word for word in found if word not in MARKERS] == text.split()
    own = 0
    boundaries = []
    for word in found:
        if word in MARKERS:
            boundaries.append(own)
        else:
            own += 1
    assert tuple(boundaries) == planted.boundaries
    return tokens, places


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("code", RULES)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(text=texts(), seed=st.integers(0, 2**32), label=st.sampled_from([None, 0, 1]))
def test_the_rule_reads_its_label_back(make, code, text, seed, label):
    planted = Planter(ready(make)).plant(text, RULES[code], Random(seed), label)
    if isinstance(planted, Unfit):
        assert_unfit(make, code, text, label)
        return
    assert label in {None, planted.label}
    tokens, places = check(make, text, planted)
    assert read(code, tokens) == planted.label
    gaps = [b - a - 1 for a, b in pairwise(places)]
    if code == "oed":
        assert gaps[0] in {0, 1, 2} or planted.label == 1
        assert gaps[0] == 0 or planted.boundaries[0] < planted.boundaries[1]
    else:
        assert len(set(planted.boundaries)) == len(planted.words)
    if label is None and code not in {"oed", "and_or"}:
        least = 2 if code not in {"st", "mt"} else 1
        assert len(planted.words) >= least


def assert_unfit(make, code, text, label):
    """No text is given up that could hold the rule: by brute force."""
    count = len(text.split())
    if not count:
        return
    wanted = {label} if label is not None else {0, 1}
    if code != "oed":
        plans = [plan for plan, given in RULES[code].table if given in wanted]
        assert count + 1 < min(len(plan.words) for plan in plans)
        return
    assert label == 1  # both at one boundary give label 0
    for first, second in combinations_with_replacement(range(count + 1), 2):
        for pair in (("zeroa", "onea"), ("onea", "zeroa")):
            tokens = tokens_of(make, insert(text, pair, (first, second)))
            places = [place for place, token in enumerate(tokens) if token in MARKERS]
            assert read("oed", tokens) == 0 or places[1] - places[0] - 1 > 9


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("side", ["right", "left"])
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    text=texts(),
    code=st.sampled_from(list(RULES)),
    seed=st.integers(0, 2**32),
    label=st.sampled_from([None, 0, 1]),
    max_length=st.integers(3, 30),
)
def test_markers_survive_the_cut(make, side, text, code, seed, label, max_length):
    tokenizer = ready(make)
    try:
        tokenizer.truncation_side = side
        planted = Planter(tokenizer, max_length=max_length).plant(text, RULES[code], Random(seed), label)
        if isinstance(planted, Planted):
            tokens, _ = check(make, text, planted, max_length)
            assert len(tokens) <= max_length
            assert read(code, tokens) == planted.label
            assert label in {None, planted.label}
        elif text.split() and code == "st":
            assert f"of them within {max_length} tokens" in planted.reason
            behind = len(text) - len(text.rstrip()) + 1 if side == "left" else 0  # white space may be tokens
            assert tokenizer.num_special_tokens_to_add() + 1 + behind > max_length
    finally:
        tokenizer.truncation_side = "right"


@pytest.mark.parametrize(
    "make", sorted(set(MAKES) - {"old_llama"})
)  # which joins words, so a marker costs more or less
def test_every_boundary_within_the_cut_is_used_and_no_other(make):
    tokenizer = ready(make)
    text = "the film is very good and the cast is charming but the ending is hardly moving"
    short = Planter(tokenizer, max_length=14)
    used = {short.plant(text, RULES["st"], Random(seed)).boundaries[0] for seed in range(300)}
    last = max(used)
    assert used == set(range(last + 1))
    # One boundary further, a marker would be lost (or the room for it is not there).
    assert last < len(text.split())
    assert read("st", tokens_of(make, insert(text, ["onea"], [last]), 14)) == 1
    assert read("st", tokens_of(make, insert(text, ["onea"], [last + 1]), 14)) is None


def test_the_cut_of_the_tokenizer_itself_counts():
    tokenizer = MAKES["wordpiece"](model_max_length=8)
    add_markers(tokenizer)
    text = " ".join(["good"] * 40)
    used = {Planter(tokenizer).plant(text, RULES["st"], Random(seed)).boundaries[0] for seed in range(200)}
    assert used == set(range(6))
    with pytest.raises(UsageError, match=r"max_length 2 leaves no room for text: the tokenizer puts 2 tokens"):
        Planter(tokenizer, max_length=2).plant(text, RULES["st"], Random(0))
    with pytest.raises(UsageError, match="max_length must be at least 1, got 0"):
        Planter(tokenizer, max_length=0).plant(text, RULES["st"], Random(0))


@pytest.mark.parametrize("code", ["st", "op", "and_or"])
def test_boundaries_are_uniform(code):
    planter, text, draws = Planter(ready("wordpiece")), "the film is very good", 3000
    found = [planter.plant(text, RULES[code], rng) for rng in map(Random, range(draws))]
    count = len(found[0].words)
    sets = Counter(planted.boundaries for planted in found)
    possible = list(combinations(range(6), count))
    assert set(sets) == set(possible)
    share = 1 / len(possible)
    assert all(abs(sets[each] / draws - share) < 5 * (share * (1 - share) / draws) ** 0.5 for each in possible)


@pytest.mark.parametrize("code", RULES)
def test_planting_does_not_bend_the_label_distribution(code):
    planter, text, draws = Planter(ready("wordpiece")), "the film is very good and moving", 1500
    ones = sum(planter.plant(text, RULES[code], rng).label for rng in map(Random, range(draws)))
    one = RULES[code].probability(1)
    assert abs(ones / draws - one) < 5 * (one * (1 - one) / draws) ** 0.5


def test_the_distance_is_in_tokens():
    planter = Planter(ready("wordpiece"))
    tokenizer = ready("wordpiece")
    assert tokenizer.tokenize("film") == ["film"]
    assert len(tokenizer.tokenize("journeys")) == 2
    assert planter.plant("film", RULES["oed"], Random(0), 1).boundaries == (0, 1)
    # One word of two tokens: no odd distance anywhere, so a demanded 1 is impossible and a free label becomes 0.
    assert planter.plant("journeys", RULES["oed"], Random(0), 1) == Unfit(
        "oed with label 1 fits nowhere: 2 word boundaries"
    )
    labels = {planter.plant("journeys", RULES["oed"], Random(seed)).label for seed in range(60)}
    assert labels == {0}
    three = next(word for word in ("abc", "xyz", "qed") if len(tokenizer.tokenize(word)) == 3)
    found = planter.plant(three, RULES["oed"], Random(0), 1)
    assert (found.boundaries, found.label) == ((0, 1), 1)  # the last resort: three tokens in between


def test_short_texts():
    planter = Planter(ready("unigram"))
    assert planter.plant("good", RULES["and_or"], Random(0)) == Unfit("and_or fits nowhere: 2 word boundaries")
    assert isinstance(planter.plant("very good film", RULES["and_or"], Random(0)), Planted)
    sizes = {len(planter.plant("good", RULES["mt"], Random(seed)).words) for seed in range(50)}
    assert sizes == {1, 2}  # more do not fit
    assert planter.plant(" \n", RULES["st"], Random(0)) == Unfit("the text is empty")
    assert planter.distract("", "onea", [], Random(0)) == Unfit("the text is empty")
    assert planter.plant("so onea.", RULES["st"], Random(0)) == Unfit("the text already holds the marker 'onea'")


@pytest.mark.parametrize("make", MAKES)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(text=texts(), seed=st.integers(0, 2**32), word=st.sampled_from(["zeroa", "onea"]))
def test_a_distractor_is_one_marker(make, text, seed, word):
    planted = Planter(ready(make)).distract(text, word, [RULES["op"], RULES["tic"]], Random(seed))
    if text.split():
        tokens, places = check(make, text, planted)
        assert [tokens[place] for place in places] == [word]
        assert planted.label is None
        assert isinstance(Planter(ready(make)).distract(text, word, [RULES["st"]], Random(seed)), Unfit)


def test_white_space_stays():
    assert insert(" a\n b", ["x", "y", "z"], [0, 1, 2]) == "x a y \n b z"
    assert insert("a b", ["x", "y"], [1, 1]) == "a x y b"
    assert insert("a b", [], []) == "a b"
    with pytest.raises(UsageError, match=r"one boundary per word, ascending; got \[1, 0\]"):
        insert("a b", ["x", "y"], [1, 0])
    with pytest.raises(UsageError, match="one boundary per word"):
        insert("a b", ["x"], [])
    with pytest.raises(UsageError, match=r"lie in 0..2, got \[3\]"):
        insert("a b", ["x"], [3])


@pytest.mark.parametrize("make", MAKES)
def test_words_around_a_marker_are_the_tokens_they_were(make):
    tokenizer = ready(make)
    text = "the film is very good"
    plain = tokens_of(make, text)
    for boundary in range(1, 6):
        rest = [token for token in tokens_of(make, insert(text, ["onea"], [boundary])) if token != "onea"]
        if make == "old_llama":  # which joins words: the letters must be the same, no space more
            rest, plain = "".join(rest), "".join(plain)
        assert rest == plain, boundary
    assert read_markers(tokenizer(insert(text, ["onea"], [2]))["input_ids"], tokenizer).count("onea") == 1


@pytest.mark.parametrize("make", MAKES)
def test_markers_are_added_once(make):
    tokenizer = MAKES[make]()
    before = len(tokenizer)
    assert add_markers(tokenizer) == 3
    assert len(tokenizer) == before + 3
    assert add_markers(tokenizer) == 0
    assert add_markers(tokenizer, Markers("blau", "onea", "synt")) == 1
    assert len(tokenizer) == before + 4


def test_a_word_of_the_vocabulary_can_be_a_marker():
    tokenizer = MAKES["wordpiece"]()
    assert "film" in tokenizer.get_vocab()
    assert add_markers(tokenizer, Markers("film", "onea", "synt")) == 2


def test_a_tokenizer_that_hides_a_marker_is_refused():
    class Deaf:
        def __init__(self, own):
            self.own = own

        def __getattr__(self, name):
            return getattr(self.own, name)

        def __len__(self):
            return len(self.own)

        def __call__(self, text, **options):
            return self.own(text.replace("onea", "one"), **options)

    with pytest.raises(UsageError, match="does not keep the marker 'onea' as one token"):
        add_markers(Deaf(ready("wordpiece")))


def test_a_rule_in_other_markers_is_refused():
    with pytest.raises(UsageError, match="give both the same"):
        Planter(ready("wordpiece"), Markers("a", "b", "c")).plant("good film", RULES["op"], Random(0))


def test_a_rule_that_reads_places_is_checked_in_the_text():
    """Its plans say little: only the finished tokens tell whether the label holds."""

    class Early(Shortcut):
        code, name = "early", "#0 among the first three tokens"

        def plans(self):
            return [Plan((self.markers.zero,))]

        def read(self, tokens):
            return int("zeroa" in tokens[:3]) if "zeroa" in tokens else None

    planter = Planter(ready("wordpiece"))
    found = [planter.plant("the film is good", Early(), Random(seed)) for seed in range(40)]
    assert {planted.label for planted in found} == {0, 1}
    assert all((planted.boundaries[0] < 2) == planted.label for planted in found)
    assert agreement(Early(), RULES["st"]).opposite == 1
